// Push a file with node's `soap`, check the receipt, wait for the report. 报送文件，核验回执，等待处理报告。
// node push.js URL PARTNER_FOLDER ORIGIN FEED 11|12 FILE MESSAGE_ID
// Prints one JSON document: `receipt`, `index` and `report`; or `refused` with the code and sentences, and then exits 1.
const crypto = require('crypto'), fs = require('fs');
const { Bus, tell } = require('./bus.js');

const [url, folder, origin, feed, version, file, messageId] = process.argv.slice(2);

tell(async () => {
  const bus = new Bus(url, folder, origin, version), feeds = await bus.service('Feeds');
  const content = fs.readFileSync(file), digest = crypto.createHash('sha256').update(content).digest('hex');
  const { Receipt: receipt } = await feeds('SubmitDelivery', {
    ...bus.names(messageId), Feed: feed, ContentType: 'text/csv',
    ContentDigest: { attributes: { algorithm: 'SHA-256' }, $value: digest }, Content: content.toString('base64'),
  });
  const said = bus.said(receipt), delivery = () => ({ ...bus.asked(), DeliveryMessageId: messageId });
  if (said.message_id !== messageId || said.content_digest !== digest) throw new Error('it is for something else');
  if ((await feeds('GetReceipt', delivery())).Receipt !== receipt) throw new Error('asked again, it is another receipt');
  let reported;
  while ((reported = await feeds('GetReport', delivery())).Status === 'waiting') {
    await new Promise(resolve => setTimeout(resolve, 200));
  }
  return { receipt, index: said.index, status: reported.Status, report: reported.Report };
});
