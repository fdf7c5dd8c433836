// Push one delivery with node's `soap` package, as a bureau with a Node toolkit would.
// node node_push.js URL PARTNER_FOLDER ORIGIN FEED 11|12
const crypto = require('crypto'), fs = require('fs'), https = require('https'), path = require('path');
const soap = require('soap');

const [url, folder, origin, feed, version] = process.argv.slice(2);
const read = name => fs.readFileSync(path.join(folder, name));
const httpsAgent = new https.Agent({ cert: read('connection.pem'), key: read('connection.key'), ca: read('ca.pem') });
const signature = new soap.WSSecurityCert(read('signing.key'), read('signing.pem'), '', {
  signatureAlgorithm: 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256',
});
const security = {
  postProcess: (xml, envelope) => signature.postProcess(xml, envelope),
  addOptions: options => { options.httpsAgent = httpsAgent; },
};

async function main() {
  const options = { wsdl_options: { httpsAgent }, forceSoap12Headers: version === '12' };
  const client = await soap.createClientAsync(`${url}/soap/feeds?wsdl`, options);
  client.setSecurity(security);
  const content = Buffer.from('id,kind\n1,0118\n');
  const request = {
    Sender: path.basename(folder), Recipient: origin, MessageId: `node-${Date.now()}`, Feed: feed,
    ContentType: 'text/csv',
    ContentDigest: { attributes: { algorithm: 'SHA-256' }, $value: crypto.createHash('sha256').update(content).digest('hex') },
    Content: content.toString('base64'),
  };
  client.Feeds[`FeedsSoap${version}`].SubmitDelivery(request, (error, answer) => {
    if (error) { console.error(error.response ? error.response.data : error.message); process.exit(1); }
    console.log(answer.Receipt);
  });
}

main().catch(error => { console.error(error.message); process.exit(1); });
