// What @odata/client makes of the feed: `node odata_client.mjs`, {root, key, row} on stdin, what it saw on stdout.

import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';

const { OData, Edm } = (() => {
  const require = createRequire(new URL('../../local/package.json', import.meta.url));
  return { ...require('@odata/client'), Edm: require('@odata/client/lib/types_v4').EdmV4 };
})();

const { root, key, row, patient } = JSON.parse(await text(process.stdin));
const client = OData.New4({
  serviceEndpoint: root,
  commonHeaders: { Accept: 'application/json', 'Content-Type': 'application/json', 'x-functions-key': key },
});
const set = client.getEntitySet('msemr_observations');
const guid = Edm.Guid.from;

const names = (rows) => rows.map((one) => one.msemr_codetext);
const where = async (filter) => names(await set.query(filter));
const having = () => client.newFilter();

async function read() {
  return {
    sets: (await client.requestUri(root)).value.map((one) => one.name),
    byKey: await set.retrieve(guid(row)),
    equal: await where(having().field('msemr_codetext').eq('weight 3')),
    choice: await where(having().field('msemr_status').eq(935000001)),
    several: await where(having().field('msemr_codetext').in(['Weight 1', 'Weight 2'])),
    number: await where(having().field('msemr_valuetypequantityvalue').between(60.5, 61.5)),
    dates: await where(
      having().field('msemr_effectivedate').gt(Edm.DateTimeOffset.from('2024-01-20T00:00:00Z')),
    ),
    lookup: (await where(having().field('_msemr_subjectpatient_value').eq(guid(patient)))).length,
    missing: await where(having().field('msemr_valuetypequantityvalue').eq(null)),
    ordered: names(await set.query(
      client.newOptions().orderby('msemr_effectivedate', 'desc').top(2).skip(1).select('msemr_codetext'),
    )),
    count: await set.count(having().field('msemr_status').eq(935000001)),
  };
}

async function write() {
  const made = await set.create({ msemr_codetext: 'Temperature', msemr_valuetypequantityvalue: 37.2 });
  const id = guid(made.msemr_observationid);
  await set.update(id, { msemr_codetext: "Fever's" });
  const changed = await set.retrieve(id);
  await set.delete(id);
  return { made, changed, gone: await refusal(() => set.retrieve(id)) };
}

async function refusals() {
  return {
    unknown: await refusal(() => set.query(having().field('nothing').eq(1))),
    readOnly: await refusal(() => set.update(guid(row), { msemr_components: 'x' })),
    expand: await refusal(() => set.query(client.newOptions().expand('patient'))),
  };
}

async function refusal(work) {
  try {
    return { answered: await work() };
  } catch (error) {
    return error.message;
  }
}

console.log(JSON.stringify({ ...await read(), ...await write(), ...await refusals() }));
