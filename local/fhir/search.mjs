// Search: https://hl7.org/fhir/R4/search.html, as strict as the Azure server under `Prefer: handling=strict`.

import {
  OperationOutcomeError, convertToSearchableDates, convertToSearchableReferences, convertToSearchableStrings,
  convertToSearchableTokens, evalFhirPathTyped, getSearchParameter, getSearchParameterDetails, matchesSearchRequest,
  parseSearchRequest, splitSearchOnComma, toTypedValue,
} from '@medplum/core';
import { listMandatoryElements } from './definitions.mjs';
import { FhirError } from './outcome.mjs';
import { formatQuery, pageSize, readPage } from './paging.mjs';

const RESULT_PARAMETERS = new Set([
  '_count', '_elements', '_format', '_include', '_pretty', '_sort', '_summary', '_total', 'ct',
]);
// Valid in R4: https://hl7.org/fhir/R4/datatypes.html#dateTime
const LEAP_SECOND = /("\d{4}-\d\d-\d\dT\d\d:\d\d):60((?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")/g;
const MODIFIERS = {
  token: ['not', 'missing', 'text'],
  string: ['exact', 'contains', 'missing'],
  reference: ['missing'],
  date: ['missing'],
  uri: ['missing'],
};

/** Returns the searchset for `Type?params`. The `next` link leads to the next page; its `ct` is opaque as on Azure. */
export function searchset({ readable, tokens, base }, type, params) {
  const { filters, sortRules = [] } = parse(type, params, readable);
  const includes = params.getAll('_include').map((text) => parseInclude(type, text));
  const total = pageSize(params) === 0 || params.get('_total') === 'accurate';
  const order = orderBy(type, sortRules);
  let found = find(readable, type, filters);
  if (sortRules.length) found = sorted(found, order);
  else if (total) found = [...found];

  const { page, link } = readPage(tokens, found, order, params, `${base}/${type}`);
  const elements = params.get('_elements');
  const entry = page.map((version) => ({
    fullUrl: `${base}/${type}/${version.id}`,
    resource: elements ? subset(version.resource, elements.split(',')) : version.resource,
    search: { mode: 'match' },
  }));
  for (const version of included(readable, page, includes)) {
    const { resource } = version;
    entry.push({ fullUrl: `${base}/${resource.resourceType}/${version.id}`, resource, search: { mode: 'include' } });
  }
  return {
    resourceType: 'Bundle',
    type: 'searchset',
    ...(total && { total: found.length }),
    link,
    ...(entry.length && { entry }),
  };
}

/** Returns at most two existing resources that match the criteria: https://hl7.org/fhir/R4/http.html#ccreate */
export function findMatches(store, type, criteria) {
  const { filters } = parse(type, new URLSearchParams(criteria), store);
  if (!filters) throw new FhirError(412, 'The criteria of a conditional operation are not selective enough.');
  return [...take(find(store, type, filters), 2)];
}

function parse(type, params, store) {
  const chains = [...params].filter(([key]) => key.includes('.'));
  const plain = [...params].filter(([key]) => !key.includes('.') && key !== '_include');
  for (const [key] of plain) requireSupported(type, key);
  const criteria = new URLSearchParams(plain.map(([key, value]) => [key, readValue(type, key, value)]));
  criteria.delete('ct');
  try {
    const request = parseSearchRequest(new URL(`http://localhost/${type}${formatQuery(criteria)}`));
    const chained = chains.map(([key, value]) => follow(store, type, key, value));
    return chained.length ? { ...request, filters: [...(request.filters ?? []), ...chained] } : request;
  } catch (error) {
    if (error instanceof OperationOutcomeError) throw new FhirError(400, error.outcome.issue);
    throw error;
  }
}

/** Returns the value with a leap second as the second before it, and throws 400 for a date that no calendar has. */
function readValue(type, key, value) {
  if (getSearchParameter(type, key)?.type !== 'date') return value;
  const dates = value.replaceAll(/(T\d\d:\d\d):60/g, '$1:59');
  const isDate = (text) => !Number.isNaN(Date.parse(text.replace(/^[a-z]{2}/, '')));
  if (!splitSearchOnComma(dates).every(isDate)) throw new FhirError(400, `The value of '${key}' is no date.`);
  return dates;
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

function* find(store, type, filters = []) {
  for (const version of candidates(store, type, filters)) {
    if (filters.length === 0) yield version;
    else {
      const resource = readForSearch(version);
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
  if (!fewest) return store.all(type);
  const found = [...fewest].map((id) => store.live(type, id)).filter(Boolean);
  return found.sort((a, b) => a.sequence - b.sequence);
}

function indexedIds(store, type, { code, operator, value }) {
  if (operator !== 'eq') return undefined;
  const parameter = getSearchParameter(type, code);
  const values = splitSearchOnComma(value);
  if (code === '_id') return new Set(values);
  if (!store.isIndexed) return undefined;
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

/**
 * `subject:Patient.name=x`: a filter for references to what `Patient?name=x` finds. Like Azure, it demands the type
 * where a parameter has several: https://hl7.org/fhir/R4/search.html#chaining
 */
function follow(store, type, key, value) {
  const [link, ...rest] = key.split('.');
  const [code, stated] = link.split(':');
  const { target } = requireReference(type, code);
  if (!stated && target.length > 1) throw new FhirError(400, `The chain '${link}' must name a type.`);
  const linked = stated ?? target[0];
  if (!target.includes(linked)) throw new FhirError(400, `'${code}' of ${type} does not refer to ${linked}.`);
  const { filters } = parse(linked, new URLSearchParams([[rest.join('.'), value]]), store);
  const references = new Set([...find(store, linked, filters)].map(({ id }) => `${linked}/${id}`));
  return { code, operator: 'chain', references };
}

function requireReference(type, code) {
  const parameter = getSearchParameter(type, code);
  if (parameter?.type !== 'reference') throw new FhirError(400, `'${code}' of ${type} is no reference.`);
  return parameter;
}

/** `Observation:subject` or `Observation:subject:Patient`: https://hl7.org/fhir/R4/search.html#include */
function parseInclude(type, text) {
  const [source, code, target] = text.split(':');
  if (source !== type) throw new FhirError(400, `_include of ${source} does not fit a search for ${type}.`);
  return { parameter: requireReference(type, code), target };
}

/** Returns what the matches refer to, each once; what does not exist is left out. */
function included(store, page, includes) {
  const names = page.flatMap(({ resource }) => includes.flatMap(({ parameter, target }) => {
    const references = convertToSearchableReferences(valuesOf(resource, parameter));
    return references.filter((name) => !target || name.startsWith(`${target}/`));
  }));
  return [...new Set(names)].map((name) => store.live(...name.split('/'))).filter(Boolean);
}

function matches(resource, filter) {
  const { code, operator, value } = filter;
  const type = resource.resourceType;
  const parameter = getSearchParameter(type, code);
  const found = valuesOf(resource, parameter);
  if (operator === 'chain') return convertToSearchableReferences(found).some((name) => filter.references.has(name));
  if (operator === 'missing') return (found.length === 0) === (value === 'true');
  const expected = splitSearchOnComma(value);
  switch (parameter.type) {
    case 'token': {
      if (operator === 'text') return textsOf(found).some((text) => startsWith(text, value));
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

/** Returns the resource with a leap second as the second before it, since JavaScript's dates know none. */
function readForSearch(version) {
  return version.json.includes(':60') ? JSON.parse(version.json.replaceAll(LEAP_SECOND, '$1:59$2')) : version.resource;
}

function valuesOf(resource, parameter) {
  const { parsedExpression } = getSearchParameterDetails(resource.resourceType, parameter);
  return evalFhirPathTyped(parsedExpression, [toTypedValue(resource)]);
}

/**
 * The texts of codes: text and displays of a CodeableConcept, the display of a Coding, the text of an Identifier's
 * type, as in Core/Features/Search/Converters of microsoft/fhir-server. https://hl7.org/fhir/R4/search.html#modifiers
 */
function textsOf(found) {
  const texts = found.flatMap(({ value: { text, display, coding = [], type } }) => {
    return [text, display, type?.text, ...coding.map((item) => item.display)];
  });
  return texts.filter((text) => typeof text === 'string');
}

/**
 * Like Azure, which compares the whole value of `:text`, commas included, with the beginning of a text:
 * Core/Features/Search/Expressions/Parsers/SearchParameterExpressionParser.cs in microsoft/fhir-server.
 */
function startsWith(text, value) {
  return text.toLowerCase().startsWith(value.toLowerCase());
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

/** Orders versions by these rules, then by when they were written, as Azure does (ResourceSurrogateId). */
function orderBy(type, rules) {
  const findPlace = (version) => [...rules.map(({ code }) => sortKey(type, version, code)), version.sequence];
  const compare = (a, b) => {
    for (const [i, key] of a.entries()) {
      const order = key < b[i] ? -1 : Number(key > b[i]);
      if (order) return rules[i]?.descending ? -order : order;
    }
    return 0;
  };
  return { findPlace, compare };
}

function sorted(versions, { findPlace, compare }) {
  const keyed = [...versions].map((version) => ({ version, place: findPlace(version) }));
  return keyed.sort((a, b) => compare(a.place, b.place)).map(({ version }) => version);
}

function sortKey(type, version, code) {
  if (code === '_lastUpdated') return version.lastUpdated;
  const parameter = getSearchParameter(type, code);
  if (!['date', 'string'].includes(parameter?.type)) throw new FhirError(400, `Sorting by '${code}' is not supported.`);
  const values = valuesOf(readForSearch(version), parameter);
  if (parameter.type === 'date') return convertToSearchableDates(values)[0]?.start ?? '';
  return convertToSearchableStrings(values)[0] ?? '';
}

/**
 * Returns these elements, and the mandatory ones: https://hl7.org/fhir/R4/search.html#elements. Like Azure it keeps
 * `meta` whole, with its extensions, and marks it: Shared.Api/Features/Formatters/FhirJsonOutputFormatter.cs in
 * microsoft/fhir-server.
 */
function subset(resource, elements) {
  const mandatory = listMandatoryElements(resource.resourceType);
  const kept = new Set(['resourceType', 'id', 'meta', ...mandatory, ...elements]);
  const choices = mandatory.filter((name) => name.endsWith('[x]')).map((name) => name.slice(0, -'[x]'.length));
  const isKept = ([name]) => kept.has(name.replace(/^_/, '')) || choices.some((choice) => name.startsWith(choice));
  const part = Object.fromEntries(Object.entries(resource).filter(isKept));
  const tag = { system: 'http://terminology.hl7.org/CodeSystem/v3-ObservationValue', code: 'SUBSETTED' };
  return { ...part, meta: { ...part.meta, tag: [...(part.meta.tag ?? []), tag] } };
}

function* take(items, count) {
  if (count <= 0) return;
  for (const item of items) {
    yield item;
    if (--count === 0) return;
  }
}
