// What o.js makes of the feed: `node o_js.mjs`, {root, key, row, patient} on stdin, what it saw on stdout.

import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';

const require = createRequire(new URL('../../local/package.json', import.meta.url));
const { o } = require('odata');
const buildQuery = createRequire(require.resolve('odata'))('odata-query').default;

const { root, key, row, patient } = JSON.parse(await text(process.stdin));
const headers = { 'Content-Type': 'application/json', 'x-functions-key': key };
// A batch takes headers and all other settings of its own.
const batch = { endpoint: '$batch', boundaryPrefix: 'batch_', headers: new Headers(headers) };
const feed = o(root, { headers, batch });
const SET = 'msemr_observations';

const names = (rows) => rows.map((one) => one.msemr_codetext);
const list = (query) => feed.get(SET).query(query);
const where = async (filter) => names(await list({ $filter: filter }));
// odata-query, which o.js brings, builds the whole query of an address.
const built = async (query) => names(await feed.get(SET + buildQuery(query)).query());

async function pages() {
  const found = [];
  let page = await (await feed.get(SET).fetch({ $count: true, $select: 'msemr_codetext' })).json();
  const counted = page['@odata.count'];
  for (;;) {
    found.push(names(page.value));
    const next = page['@odata.nextLink'];
    if (!next) return { counted, found };
    page = await (await o(next, { headers }).get().fetch()).json();
  }
}

async function read() {
  return {
    sets: (await feed.get().query()).map((one) => one.name),
    metadata: (await feed.get('$metadata').query()).status,
    pages: await pages(),
    byKey: await feed.get(`${SET}(${row})`).query(),
    onlyText: await feed.get(`${SET}(${row})`).query({ $select: 'msemr_codetext' }),
    equal: await where("msemr_codetext eq 'weight 3'"),
    lookup: await where(`_msemr_subjectpatient_value eq ${patient}`),
    none: await where("msemr_codetext eq 'Height'"),
    counted: await feed.get(`${SET}/$count`).query({ $filter: 'msemr_status eq 935000001' }),
    countedNone: await feed.get(`${SET}/$count`).query({ $filter: "msemr_codetext eq 'Height'" }),
    chosen: await built({
      select: ['msemr_codetext'], orderBy: ['msemr_effectivedate desc'], top: 2, skip: 1,
      filter: { msemr_effectivedate: { gt: new Date('2024-01-20T00:00:00Z') } },
    }),
    negated: await built({ filter: { not: [{ msemr_codetext: 'Weight 1' }], msemr_status: 935000001 } }),
    either: await built({
      filter: { or: [{ msemr_codetext: 'Weight 4' }, { msemr_codetext: { contains: 'T 5' } }] },
    }),
    listed: await built({ filter: { msemr_codetext: { in: ['Weight 6', 'Weight 7'] } } }),
    guids: await built({ filter: { msemr_observationid: { type: 'guid', value: row } } }),
    missing: await built({ filter: { msemr_valuetypequantityvalue: null } }),
    several: await feed.get(`${SET}(${row})`).get(`${SET}/$count`).query(),
  };
}

async function write() {
  const made = await feed.post(SET, { msemr_codetext: 'Temperature', msemr_valuetypequantityvalue: 37.2 }).query();
  const address = `${SET}(${made.msemr_observationid})`;
  const patched = (await feed.patch(address, { msemr_codetext: "Fever's" }).query()).status;
  const changed = await feed.get(address).query();
  const whole = (await feed.patch(address, { ...changed, msemr_codetext: 'Fever' }).query()).status;
  const sentBack = await feed.get(address).query();
  const stale = await refusal(conditional(changed['@odata.etag']).patch(address, { msemr_codetext: 'Chill' }));
  const deleted = (await conditional(sentBack['@odata.etag']).delete(address).query()).status;
  return { made, patched, changed, whole, sentBack, stale, deleted, gone: await refusal(feed.get(address)) };
}

const conditional = (tag) => o(root, { headers: { ...headers, 'If-Match': tag } });

async function refusals() {
  return {
    malformed: await refusal(feed.get(SET), { $filter: 'msemr_codetext eq' }),
    unknown: await refusal(feed.get(SET), { $filter: 'nothing eq 1' }),
    wrongType: await refusal(feed.patch(`${SET}(${row})`, { msemr_status: 'final' })),
    readOnly: await refusal(feed.patch(`${SET}(${row})`, { msemr_components: 'x' })),
    expand: await refusal(feed.get(SET), { $expand: 'patient' }),
    put: await refusal(feed.put(`${SET}(${row})`, { msemr_codetext: 'x' })),
    batch: await answerTo(feed.get(SET).batch()),
  };
}

const refusal = (asked, query) => answerTo(asked.query(query));

async function answerTo(asked) {
  try {
    return { answered: await asked };
  } catch (response) {
    if (!(response instanceof Response)) throw response;
    return { status: response.status, ...(await response.json()).error };
  }
}

console.log(JSON.stringify({ ...await read(), ...await write(), ...await refusals() }));
