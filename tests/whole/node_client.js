// Push a delivery with node's `soap` package, wait for its report, and ask whose the thing is, as a bureau with a Node
// toolkit would. Prints one JSON document.
// node node_client.js URL PARTNER_FOLDER ORIGIN FEED 11|12 FILE MESSAGE_ID LONGITUDE LATITUDE
const crypto = require('crypto'), fs = require('fs'), https = require('https'), path = require('path');
const soap = require('soap');

const [url, folder, origin, feed, version, file, messageId, longitude, latitude] = process.argv.slice(2);
const read = name => fs.readFileSync(path.join(folder, name));
const httpsAgent = new https.Agent({ cert: read('connection.pem'), key: read('connection.key'), ca: read('ca.pem') });
const signature = new soap.WSSecurityCert(read('signing.key'), read('signing.pem'), '', {
  signatureAlgorithm: 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256',
});
const security = {
  postProcess: (xml, envelope) => signature.postProcess(xml, envelope),
  addOptions: options => { options.httpsAgent = httpsAgent; },
};
const names = id => ({ Sender: path.basename(folder), Recipient: origin, MessageId: id });
const asked = () => ({ ...names(`read-${crypto.randomUUID()}`), Purpose: 'test' });

async function service(name) {
  const options = { wsdl_options: { httpsAgent }, forceSoap12Headers: version === '12' };
  const client = await soap.createClientAsync(`${url}/soap/${name.toLowerCase()}?wsdl`, options);
  client.setSecurity(security);
  const port = client[name][`${name}Soap${version}`];
  return (operation, request) => new Promise((resolve, reject) =>
    port[operation](request, (error, answer) => error ? reject(error) : resolve(answer)));
}

async function main() {
  const feeds = await service('Feeds'), components = await service('Components');
  const content = fs.readFileSync(file);
  const digest = crypto.createHash('sha256').update(content).digest('hex');
  const pushed = await feeds('SubmitDelivery', {
    ...names(messageId), Feed: feed, ContentType: 'text/csv',
    ContentDigest: { attributes: { algorithm: 'SHA-256' }, $value: digest }, Content: content.toString('base64'),
  });
  const again = await feeds('GetReceipt', { ...asked(), DeliveryMessageId: messageId });
  let reported;
  do {
    await new Promise(resolve => setTimeout(resolve, 200));
    reported = await feeds('GetReport', { ...asked(), DeliveryMessageId: messageId });
  } while (reported.Status === 'waiting');
  const place = { LongitudeDeg: longitude, LatitudeDeg: latitude, RadiusM: 5 };
  const near = [].concat((await components('FindNearest', { ...asked(), ...place })).Near);
  const key = near[0].Ownership.Component.Key;
  const owned = (await components('GetOwnership', { ...asked(), ComponentId: key })).Ownership;
  console.log(JSON.stringify({
    receipt: pushed.Receipt, again: again.Receipt, status: reported.Status, report: reported.Report,
    near: near.map(one => Number(one.Ownership.Component.Key)), verdict: owned.Verdict,
    claims: [].concat(owned.Claim).map(claim => claim.MessageId),
  }));
}

main().catch(error => {
  console.error(error.response ? error.response.data : error.stack);
  process.exit(1);
});
