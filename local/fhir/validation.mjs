// Validates what was parsed against the definitions of R4: https://hl7.org/fhir/R4/validation.html. Unlike an error of
// parsing, an error here refuses one entry: Azure validates in the handler of each write (ResourceElementValidator).

import { OperationOutcomeError, validateResource } from '@medplum/core';
import { FhirError, isError } from './outcome.mjs';

// The longest string that R4 allows (https://hl7.org/fhir/R4/datatypes.html#string); base64 may be longer.
const MAX_STRING = 1024 * 1024;

/** Throws 400 unless the value is a valid resource of this type. */
export function requireValid(type, resource) {
  if (resource === null || typeof resource !== 'object' || Array.isArray(resource)) {
    throw new FhirError(400, `The body must be a ${type}.`);
  }
  if (resource.resourceType !== type) throw new FhirError(400, `The body is no ${type}.`, `${type}.resourceType`);
  const issues = validateStructure(resource);
  if (issues.some(isError)) throw new FhirError(400, issues);
}

function validateStructure(resource) {
  try {
    return validateResource(holdsLong(resource) ? shortenLong(resource) : resource);
  } catch (error) {
    if (error instanceof OperationOutcomeError) return error.outcome.issue;
    return new FhirError(400, `The resource cannot be validated: ${error.message}`, resource.resourceType).issues;
  }
}

/** Whether a text is so long that it must be base64, which was parsed. */
function holdsLong(value) {
  if (typeof value === 'string') return value.length > MAX_STRING;
  return value !== null && typeof value === 'object' && Object.values(value).some(holdsLong);
}

/** Returns a copy without long base64: the library's pattern for it needs too deep a stack. */
function shortenLong(value) {
  if (typeof value === 'string') return value.length > MAX_STRING ? 'AAAA' : value;
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(shortenLong);
  return Object.fromEntries(Object.entries(value).map(([name, child]) => [name, shortenLong(child)]));
}
