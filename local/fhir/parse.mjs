// Parses FHIR JSON as Azure does, with Firely's parser: what it cannot parse refuses the whole body, of a batch as well.
// Shared.Api/Features/Formatters/FhirJsonInputFormatter.cs in microsoft/fhir-server puts each error into the ModelState,
// and [ValidateModelState] of FhirController.cs throws a ResourceNotValidException for the request. Errors of parsing
// are unknown elements and types, values of another JSON type, codes outside a required enum, and values that .NET
// cannot read as a date, time, instant, number or base64. What can be parsed and is not valid (a missing element, a bad
// id) refuses its own entry: validation.mjs.

import { describeElement, isKnownType, isPrimitive } from './definitions.mjs';
import { FhirError } from './outcome.mjs';

// Wider than FHIR's own grammar, as DATETIMEREGEX of Firely's Hl7.Fhir.ElementModel.Types.DateTime is.
const DATE = /^\d{4}(-\d\d(-\d\d)?)?$/;
const ZONE = '(Z|[+-](0\\d|1[0-4]):[0-5]\\d)';
const TIME = '([01]\\d|2[0-3])(:[0-5]\\d(:([0-5]\\d|60)(\\.\\d+)?)?)?';
// R4's grammar without the leap second, which a DateTimeOffset of .NET does not know.
const INSTANT = new RegExp(`^\\d{4}-\\d\\d-\\d\\dT([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d+)?${ZONE}$`);
const PARSERS = {
  boolean: requireType('boolean'),
  decimal: requireType('number'),
  integer: Number.isInteger,
  unsignedInt: Number.isInteger,
  positiveInt: Number.isInteger,
  date: matchDateTime(DATE),
  dateTime: matchDateTime(new RegExp(`^\\d{4}(-\\d\\d(-\\d\\d(T${TIME}${ZONE}?)?)?)?$`)),
  time: matchText(new RegExp(`^${TIME}$`)),
  instant: matchDateTime(INSTANT),
  base64Binary: isBase64,
};
const WRITERS = { instant: rewriteInstant, base64Binary: rewriteBase64 };

/** Returns the body as Azure stores it. Throws 400 with one issue for each place that cannot be parsed. */
export function parseResource(body) {
  const errors = [];
  try {
    parseAny(body, body?.resourceType ?? 'Resource', errors);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new FhirError(400, 'The body is nested too deeply.');
  }
  // The ModelState has no key for an error of the parser, so the issue has no expression.
  if (errors.length) throw new FhirError(400, errors.flatMap((text) => new FhirError(400, text).issues));
  return body;
}

/** Adds the errors of a resource. Instants and base64 are written again, in place. */
function parseAny(resource, place, errors) {
  const type = resource?.resourceType;
  if (isObject(resource) && isKnownType(type)) parseElements(resource, type, place, errors);
  else errors.push(describe('The type of the resource is unknown', place));
}

function parseElements(owner, definition, place, errors) {
  for (const name of Object.keys(owner)) {
    if (name === 'resourceType' && isKnownType(definition)) continue;
    const value = owner[name];
    const element = describeElement(definition, name);
    const path = `${place}.${name}`;
    if (!element) errors.push(describe(`Encountered unknown element '${name}'`, path));
    else if (element.isList !== Array.isArray(value)) errors.push(describe('The element is a list or is none', path));
    else if (element.isList) parseList(value, element, path, errors);
    else parseValue(owner, name, element, path, errors);
  }
}

function parseList(items, element, place, errors) {
  for (let index = 0; index < items.length; index += 1) {
    // null stands for a primitive value that has only extensions: https://hl7.org/fhir/R4/json.html#null
    if (items[index] !== null) parseValue(items, index, element, `${place}[${index}]`, errors);
  }
}

function parseValue(holder, key, { type, codes }, place, errors) {
  const value = holder[key];
  if (type === 'ResourceList') parseAny(value, place, errors);
  else if (codes) {
    if (codes.includes(value)) return;
    errors.push(describe(`Literal '${shorten(value)}' is not a valid value of the enumeration`, place));
  } else if (!isPrimitive(type)) {
    if (isObject(value)) parseElements(value, type, place, errors);
    else errors.push(describe('The element must be an object', place));
  } else if (!(PARSERS[type] ?? isText)(value)) {
    errors.push(describe(`Literal '${shorten(value)}' cannot be parsed as a ${type}`, place));
  } else if (WRITERS[type]) {
    holder[key] = WRITERS[type](value);
  }
}

function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function isText(value) {
  return typeof value === 'string';
}

function requireType(type) {
  return (value) => typeof value === type;
}

function matchText(pattern) {
  return (value) => isText(value) && pattern.test(value);
}

function matchDateTime(pattern) {
  return (value) => isText(value) && pattern.test(value) && isOnCalendar(value);
}

function isOnCalendar(value) {
  const [year, month = 1, day = 1] = value.split('T')[0].split('-').map(Number);
  const date = new Date(Date.UTC(year, month - 1, day));
  date.setUTCFullYear(year); // years below 100 are not those of the 20th century
  return year > 0 && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
}

/** As .NET's Convert.FromBase64String. Without a repetition in the pattern, since V8 keeps a state for each step. */
function isBase64(value) {
  if (!isText(value)) return false;
  const text = value.replace(/[ \t\r\n]/g, '');
  const padding = text.endsWith('==') ? 2 : Number(text.endsWith('='));
  return text.length % 4 === 0 && !/[^A-Za-z0-9+/]/.test(text.slice(0, text.length - padding));
}

function rewriteBase64(value) {
  return Buffer.from(value, 'base64').toString('base64');
}

/** Writes yyyy-MM-dd'T'HH:mm:ss.FFFFFFFK of a DateTimeOffset: no trailing zeros, seven digits at most, no Z. */
export function rewriteInstant(value) {
  const [, seconds, digits = '', zone] = /^(.{19})(?:\.(\d+))?(Z|[+-].{5})$/.exec(value);
  const fraction = digits.slice(0, 7).replace(/0+$/, '');
  return `${seconds}${fraction && `.${fraction}`}${zone === 'Z' || zone === '-00:00' ? '+00:00' : zone}`;
}

function shorten(value) {
  return String(value).slice(0, 100);
}

/** As Resources.resx of Azure and Firely's message: the value is quoted, and only the text names the place. */
function describe(text, place) {
  return `Error occurred when parsing model: '${text} (at ${place})'.`;
}
