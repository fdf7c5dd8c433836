// Ask with node's `soap` what lies near a place, and whose the nearest is. 查询附近部件及最近一个的权属。
// node ask.js URL PARTNER_FOLDER ORIGIN 11|12 LONGITUDE LATITUDE
const { Bus, tell } = require('./bus.js');

const [url, folder, origin, version, longitude, latitude] = process.argv.slice(2);

tell(async () => {
  const bus = new Bus(url, folder, origin, version), components = await bus.service('Components');
  const place = { LongitudeDeg: longitude, LatitudeDeg: latitude, RadiusM: 5 };
  const near = [].concat((await components('FindNearest', { ...bus.asked(), ...place })).Near);
  const ComponentId = near[0].Ownership.Component.Key;
  const owned = (await components('GetOwnership', { ...bus.asked(), ComponentId })).Ownership;
  return {
    near: near.map(one => Number(one.Ownership.Component.Key)), verdict: owned.Verdict,
    claims: [].concat(owned.Claim).map(claim => claim.MessageId),
  };
});
