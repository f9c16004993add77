// What ts-odata-client makes of the feed: `node ts_odata_client.mjs`, {root, key, row} on stdin, what it saw on stdout.

import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';

const require = createRequire(new URL('../../local/package.json', import.meta.url));
const { ODataQuery } = require('ts-odata-client');
const { Literal } = require('ts-odata-client/lib/Literal');

const { root, key, row, patient } = JSON.parse(await text(process.stdin));
const requestInit = () => ({ headers: { 'x-functions-key': key } });
const rows = ODataQuery.forV4(`${root}msemr_observations`, { requestInit });

const names = (found) => found.map((one) => one.msemr_codetext);
const where = async (filter) => names((await rows.filter(filter).getManyAsync()).value);

async function pages() {
  const found = [];
  for (let page = await rows.getManyAsync(); page; page = await page.next?.()) found.push(page.value.length);
  return found;
}

async function every() {
  const found = [];
  for await (const one of rows.filter((o) => o.msemr_codetext.$contains('weight'))) found.push(one.msemr_codetext);
  return found;
}

async function refusal(query) {
  try {
    return { answered: await query };
  } catch (error) {
    return JSON.parse(error.message).error;
  }
}

console.log(JSON.stringify({
  pages: await pages(),
  every: await every(),
  byKey: await rows.getAsync(new Literal(row, 'guid')),
  combined: await where((o, { and, not }) => and(
    o.msemr_status.$equals(935000001), not(o.msemr_codetext.$contains('0')),
  )),
  either: await where((o) => o.msemr_codetext.$equals('Weight 4').or(o.msemr_codetext.$equals('Weight 5'))),
  listed: await where((o) => o.msemr_codetext.$in(['Weight 6', 'Weight 7'])),
  starting: (await where((o) => o.msemr_codetext.$startsWith('Weight 1'))).length,
  since: await where((o) => o.msemr_effectivedate.$greaterThan(new Date('2024-01-22T00:00:00Z'))),
  missing: await where((o) => o.msemr_valuetypequantityvalue.$equals(null)),
  chosen: (await rows.orderByDescending((o) => o.msemr_effectivedate).skip(1).top(2)
    .select('msemr_codetext').getManyAsync()).value,
  counted: (await rows.filter((o) => o.msemr_status.$equals(935000001)).getManyWithCountAsync())['@odata.count'],
  // It leaves the parentheses away: by OData's grammar that is (not msemr_codetext) eq 'Weight 0'.
  misbuilt: await refusal(rows.filter((o, { not }) => not(o.msemr_codetext.$equals('Weight 0'))).getManyAsync()),
  unknown: await refusal(rows.filter((o) => o.nothing.$equals(1)).getManyAsync()),
  expanded: await refusal(rows.expand('patient').getManyAsync()),
}));
