// A bureau's side of Yongtong with node's `soap` package (npm install soap) and that package's own WS-Security.
// 用 node 的 soap 包及其自带的 WS-Security 连接甬通。
const crypto = require('crypto'), fs = require('fs'), https = require('https'), path = require('path');
const soap = require('soap');

// One bureau at one bus. folder: what `yongtong bureau enrol` gave the bureau; the signing key is RSA, for the package
// signs with no other. version: '11' or '12', of SOAP.
class Bus {
  constructor(url, folder, origin, version) {
    Object.assign(this, { url, folder, origin, version });
    this.agent = new https.Agent({
      cert: this.file('connection.pem'), key: this.file('connection.key'), ca: this.file('ca.pem'),
    });
    const signature = new soap.WSSecurityCert(this.file('signing.key'), this.file('signing.pem'), '');
    this.security = {
      postProcess: (xml, prefix) => signature.postProcess(xml, prefix),
      addOptions: options => { options.httpsAgent = this.agent; },
    };
  }

  file(name) { return fs.readFileSync(path.join(this.folder, name)); }

  // What every request begins with, and what every read begins with.
  names(id) { return { Sender: path.basename(this.folder), Recipient: this.origin, MessageId: id }; }
  asked() { return { ...this.names(`read-${crypto.randomUUID()}`), Purpose: 'test' }; }

  // `Feeds` or `Components`: a function that takes an operation and its request, and gives the answer.
  async service(name) {
    const options = { wsdl_options: { httpsAgent: this.agent }, forceSoap12Headers: this.version === '12' };
    const client = await soap.createClientAsync(`${this.url}/soap/${name.toLowerCase()}?wsdl`, options);
    client.setSecurity(this.security);
    const port = client[name][`${name}Soap${this.version}`];
    return (operation, request) => new Promise((resolve, reject) =>
      port[operation](request, (error, answer) => error ? reject(error) : resolve(answer)));
  }

  // What a receipt says, if the bus signed it, alone or together with others. TLS alone would prove that to nobody else.
  said(receipt) {
    const jws = JSON.parse(receipt), octets = part => Buffer.from(jws[part], 'base64url');
    const signed = Buffer.from(`${jws.protected}.${jws.payload}`), kind = JSON.parse(octets('protected')).typ;
    const holds = pem => crypto.verify('sha256', signed, { key: pem, dsaEncoding: 'ieee-p1363' }, octets('signature'));
    if (JSON.parse(this.file('anchors.json')).receipt_certificates.some(holds)) {
      if (kind === 'yt-receipt+jws') return JSON.parse(octets('payload'));
      if (kind === 'yt-receipts+jws' && isUnder(jws, octets('document'), JSON.parse(octets('payload')))) {
        return JSON.parse(octets('document'));
      }
    }
    throw new Error('no certificate of the bus signed this receipt');
  }
}

// Whether a document stands under the root that was signed for several (RFC 9162 §2.1.3.2).
function isUnder({ index, path }, document, { root, size }) {
  const hash = (...parts) => crypto.createHash('sha256').update(Buffer.concat(parts)).digest();
  let node = index, last = size - 1, current = hash(Buffer.of(0), document);
  if (!(node >= 0 && node <= last)) return false;
  for (const sibling of path.map(hex => Buffer.from(hex, 'hex'))) {
    if (last === 0) return false;
    if (node % 2 || node === last) {
      current = hash(Buffer.of(1), sibling, current);
      while (node % 2 === 0 && node) { node >>= 1; last >>= 1; }
    } else {
      current = hash(Buffer.of(1), current, sibling);
    }
    node >>= 1; last >>= 1;
  }
  return last === 0 && current.toString('hex') === root;
}

// Print what `work` gives as one JSON document; of a refusal its code and sentences, and exit 1.
function tell(work) {
  const print = document => console.log(JSON.stringify(document, null, 1));
  work().then(print).catch(error => {
    const fault = error.root && error.root.Envelope.Body.Fault;
    const refusal = fault && (fault.detail || fault.Detail || {}).Refusal;
    if (refusal) print({ refused: refusal });
    else console.error(error.response ? error.response.data : error.stack);
    process.exitCode = 1;
  });
}

module.exports = { Bus, tell };
