// Search: https://hl7.org/fhir/R4/search.html, as strict as the Azure server under `Prefer: handling=strict`.

import {
  OperationOutcomeError, convertToSearchableDates, convertToSearchableReferences, convertToSearchableStrings,
  convertToSearchableTokens, evalFhirPathTyped, getSearchParameter, getSearchParameterDetails, matchesSearchRequest,
  parseSearchRequest, splitSearchOnComma, toTypedValue,
} from '@medplum/core';
import { FhirError } from './outcome.mjs';

// https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported: 10 matches a page, 1,000 at most
const DEFAULT_COUNT = 10;
const MAX_COUNT = 1000;

const RESULT_PARAMETERS = new Set(['_count', '_elements', '_format', '_pretty', '_sort', '_summary', '_total', 'ct']);
const MODIFIERS = {
  token: ['not', 'missing'],
  string: ['exact', 'contains', 'missing'],
  reference: ['missing'],
  date: ['missing'],
  uri: ['missing'],
};

/** Returns the searchset for `Type?params`. The `next` link leads to the next page; its `ct` is opaque as on Azure. */
export function searchset(store, base, type, params) {
  const { filters, sortRules } = parse(type, params);
  const count = pageSize(params);
  const start = pageStart(params);
  const countOnly = count === 0;
  const total = countOnly || params.get('_total') === 'accurate';

  let found = find(store, type, filters);
  if (sortRules) found = sorted(type, found, sortRules);
  else if (!total) found = take(found, start + count + 1);
  found = [...found];

  const page = countOnly ? [] : found.slice(start, start + count);
  const link = [{ relation: 'self', url: `${base}/${type}${query(params)}` }];
  if (!countOnly && found.length > start + count) {
    const next = new URLSearchParams(params);
    next.set('ct', Buffer.from(String(start + count)).toString('base64url'));
    link.push({ relation: 'next', url: `${base}/${type}${query(next)}` });
  }
  return {
    resourceType: 'Bundle',
    type: 'searchset',
    ...(total && { total: found.length }),
    link,
    ...(page.length && {
      entry: page.map((version) => ({
        fullUrl: `${base}/${type}/${version.id}`,
        resource: subset(version.resource, params.get('_elements')),
        search: { mode: 'match' },
      })),
    }),
  };
}

/** Returns at most two existing resources that match the criteria: https://hl7.org/fhir/R4/http.html#ccreate */
export function findMatches(store, type, criteria) {
  const { filters } = parse(type, new URLSearchParams(criteria));
  if (!filters) throw new FhirError(412, 'The criteria of a conditional operation are not selective enough.');
  return [...take(find(store, type, filters), 2)];
}

function parse(type, params) {
  for (const key of params.keys()) requireSupported(type, key);
  const criteria = new URLSearchParams(params);
  criteria.delete('ct');
  try {
    return parseSearchRequest(new URL(`http://localhost/${type}${query(criteria)}`));
  } catch (error) {
    if (error instanceof OperationOutcomeError) throw new FhirError(400, error.outcome.issue);
    throw error;
  }
}

function requireSupported(type, key) {
  if (RESULT_PARAMETERS.has(key)) return;
  const [code, modifier] = key.split(':');
  const parameter = getSearchParameter(type, code);
  if (!parameter || code === '_compartment') {
    throw new FhirError(400, `Search parameter '${code}' is unknown for ${type}.`);
  }
  const modifiers = MODIFIERS[parameter.type];
  if (!modifiers) throw new FhirError(400, `Search parameters of type ${parameter.type} are not supported.`);
  if (modifier && !modifiers.includes(modifier)) {
    throw new FhirError(400, `Modifier '${modifier}' is not supported for '${code}'.`);
  }
}

function pageSize(params) {
  if (params.get('_summary') === 'count') return 0;
  const text = params.get('_count') ?? String(DEFAULT_COUNT);
  if (!/^\d+$/.test(text)) throw new FhirError(400, "'_count' must be a whole number.");
  return Math.min(Number(text), MAX_COUNT);
}

function pageStart(params) {
  const start = Number(Buffer.from(params.get('ct') ?? '', 'base64url').toString());
  if (!Number.isInteger(start) || start < 0) throw new FhirError(400, 'The continuation token is invalid.');
  return start;
}

function* find(store, type, filters = []) {
  for (const version of candidates(store, type, filters)) {
    if (filters.length === 0) yield version;
    else {
      const resource = version.resource;
      if (filters.every((filter) => matches(resource, filter))) yield version;
    }
  }
}

/** Returns versions that may match, as few as the store's index allows. */
function candidates(store, type, filters) {
  let fewest;
  for (const filter of filters) {
    const ids = indexedIds(store, type, filter);
    if (ids && (!fewest || ids.size < fewest.size)) fewest = ids;
  }
  return fewest ? [...fewest].map((id) => store.live(type, id)).filter(Boolean) : store.all(type);
}

function indexedIds(store, type, { code, operator, value }) {
  if (operator !== 'eq') return undefined;
  const parameter = getSearchParameter(type, code);
  const values = splitSearchOnComma(value);
  if (code === '_id') return new Set(values);
  if (code === 'identifier' && values.every((text) => !text.endsWith('|'))) {
    return new Set(values.flatMap((text) => [...store.findIds(type, 'identifier', parseToken(text).value)]));
  }
  if (parameter.type === 'reference' && !holdsCanonicals(type, parameter)) {
    const references = values.flatMap((text) => toReferences(parameter, text));
    return new Set(references.flatMap((reference) => [...store.findIds(type, 'reference', reference)]));
  }
  return undefined;
}

function holdsCanonicals(type, parameter) {
  const { elementDefinitions } = getSearchParameterDetails(type, parameter);
  return !elementDefinitions?.every(({ type: types }) => types?.every(({ code }) => code === 'Reference'));
}

function matches(resource, filter) {
  const { code, operator, value } = filter;
  const type = resource.resourceType;
  const parameter = getSearchParameter(type, code);
  const found = valuesOf(resource, parameter);
  if (operator === 'missing') return (found.length === 0) === (value === 'true');
  const expected = splitSearchOnComma(value);
  switch (parameter.type) {
    case 'token': {
      const tokens = code === '_id' ? [{ value: resource.id }] : convertToSearchableTokens(found);
      const isMatch = expected.some((text) => tokens.some((actual) => sameToken(parseToken(text), actual)));
      return isMatch !== (operator === 'not');
    }
    case 'reference': {
      const actual = new Set(convertToSearchableReferences(found));
      const references = expected.flatMap((text) => toReferences(parameter, text));
      return references.some((reference) => actual.has(reference));
    }
    case 'string':
      return convertToSearchableStrings(found)
        .some((actual) => expected.some((text) => sameString(actual, text, operator)));
    default:
      return matchesSearchRequest(resource, { resourceType: type, filters: [filter] });
  }
}

function valuesOf(resource, parameter) {
  const { parsedExpression } = getSearchParameterDetails(resource.resourceType, parameter);
  return evalFhirPathTyped(parsedExpression, [toTypedValue(resource)]);
}

/** `system|code`, `|code`, `system|` or `code`: https://hl7.org/fhir/R4/search.html#token */
function parseToken(text) {
  const bar = text.indexOf('|');
  return bar < 0 ? { value: text } : { system: text.slice(0, bar), value: text.slice(bar + 1) };
}

/** Compares tokens with regard to case, as Azure does; the library ignores case. */
function sameToken(expected, actual) {
  if (expected.system !== undefined && expected.system !== (actual.system ?? '')) return false;
  return expected.value === actual.value || (expected.value === '' && Boolean(expected.system));
}

/** `patient=x` is short for `patient=Patient/x`: https://hl7.org/fhir/R4/search.html#reference */
function toReferences(parameter, value) {
  return /[/:]/.test(value) ? [value] : (parameter.target ?? []).map((type) => `${type}/${value}`);
}

/** Without a modifier a string matches from the start of a word: https://hl7.org/fhir/R4/search.html#string */
function sameString(actual, expected, operator) {
  if (operator === 'exact') return actual === expected;
  const [text, part] = [actual.toLowerCase(), expected.toLowerCase()];
  return operator === 'contains' ? text.includes(part) : ` ${text}`.includes(` ${part}`);
}

function sorted(type, versions, rules) {
  const keysOf = (version) => rules.map(({ code }) => sortKey(type, version, code));
  const keyed = [...versions].map((version) => ({ version, keys: keysOf(version) }));
  keyed.sort((a, b) => {
    for (const [i, { descending }] of rules.entries()) {
      const order = a.keys[i] < b.keys[i] ? -1 : Number(a.keys[i] > b.keys[i]);
      if (order) return descending ? -order : order;
    }
    return 0;
  });
  return keyed.map(({ version }) => version);
}

function sortKey(type, version, code) {
  if (code === '_lastUpdated') return version.lastUpdated;
  const parameter = getSearchParameter(type, code);
  if (!['date', 'string'].includes(parameter?.type)) throw new FhirError(400, `Sorting by '${code}' is not supported.`);
  const values = valuesOf(version.resource, parameter);
  if (parameter.type === 'date') return convertToSearchableDates(values)[0]?.start ?? '';
  return convertToSearchableStrings(values)[0] ?? '';
}

/** https://hl7.org/fhir/R4/search.html#elements */
function subset(resource, elements) {
  if (!elements) return resource;
  const kept = new Set(['resourceType', 'id', 'meta', ...elements.split(',')]);
  const part = Object.fromEntries(Object.entries(resource).filter(([name]) => kept.has(name)));
  const tag = { system: 'http://terminology.hl7.org/CodeSystem/v3-ObservationValue', code: 'SUBSETTED' };
  return { ...part, meta: { ...part.meta, tag: [...(part.meta.tag ?? []), tag] } };
}

function query(params) {
  const text = params.toString();
  return text && `?${text}`;
}

function* take(items, count) {
  if (count <= 0) return;
  for (const item of items) {
    yield item;
    if (--count === 0) return;
  }
}
