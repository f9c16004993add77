// FHIRPath Patch: https://hl7.org/fhir/R4/fhirpatch.html. A path may have elements, [n] and where(…).

import { evalFhirPath } from '@medplum/core';
import { describeElement } from './definitions.mjs';
import { FhirError } from './outcome.mjs';

const STEP = /^(?:\.?([A-Za-z_]\w*)(?!\w*\()|\[(\d+)\]|\.where\(((?:[^()']|'[^']*')*)\))/;

/** Applies the operations to the resource, in order. */
export function applyParameters(resource, { parameter = [] }) {
  for (const { name, part = [] } of parameter) {
    if (name !== 'operation') throw refusal("A parameter of a patch is named 'operation'.");
    const parts = Object.fromEntries(part.map((item) => [item.name, item]));
    const apply = OPERATIONS[parts.type?.valueCode];
    if (!apply || !parts.path?.valueString) throw refusal('An operation needs a known type and a path.');
    apply(resource, parts.path.valueString, parts);
  }
  return resource;
}

const OPERATIONS = {
  add(resource, path, { name, value }) {
    const { value: owner, type } = findSingle(resource, path);
    const element = name?.valueString;
    const { isList, type: elementType } = describeElement(type, element) ?? refuseElement(element);
    if (isList) (owner[element] ??= []).push(readValue(value, elementType));
    else owner[element] = readValue(value, elementType);
  },

  insert(resource, path, { value, index }) {
    const { list, type } = findList(resource, path);
    list.splice(readIndex(index, list.length), 0, readValue(value, type));
  },

  delete(resource, path) {
    const found = find(resource, path);
    if (found.length > 1) throw refusal('The path of a deletion has several matches.');
    if (found.length) remove(found[0]);
  },

  replace(resource, path, { value }) {
    const { holder, key, type } = findSingle(resource, path);
    holder[key] = readValue(value, type);
  },

  move(resource, path, { source, destination }) {
    const { list } = findList(resource, path);
    const [moved] = list.splice(readIndex(source, list.length - 1), 1);
    list.splice(readIndex(destination, list.length), 0, moved);
  },
};

/** Returns every element at the path: its value and type, and the object or list that holds it. */
function find(resource, path) {
  let rest = path;
  let found;
  while (rest) {
    const [text, name, index, criterion] = STEP.exec(rest) ?? [];
    if (!text) throw refusal('The path of an operation is not understood.');
    rest = rest.slice(text.length);
    if (!found) found = name === resource.resourceType ? [{ value: resource, type: name }] : refuseElement(name);
    else if (name) found = found.flatMap((parent) => [...listChildren(parent, name)]);
    else if (index) found = found.slice(Number(index), Number(index) + 1);
    else found = found.filter(({ value }) => evalFhirPath(criterion, value)[0] === true);
  }
  return found ?? [];
}

function* listChildren({ value: owner, type }, name) {
  const element = describeElement(type, name) ?? refuseElement(name);
  const value = owner[name];
  if (Array.isArray(value)) {
    for (const [key, item] of value.entries()) {
      yield { value: item, type: element.type, holder: value, key, owner, name };
    }
  } else if (value !== undefined) {
    yield { value, type: element.type, holder: owner, key: name };
  }
}

function findSingle(resource, path) {
  const found = find(resource, path);
  if (found.length !== 1) throw refusal(`The path of an operation has ${found.length} matches; it must have one.`);
  return found[0];
}

function findList(resource, path) {
  const [first] = find(resource, path);
  if (!Array.isArray(first?.holder)) throw refusal('The path of an operation names no list.');
  return { list: first.holder, type: first.type };
}

function remove({ holder, key, owner, name }) {
  if (!Array.isArray(holder)) delete holder[key];
  else holder.splice(key, 1);
  if (owner && !holder.length) delete owner[name];
}

/** Reads value[x], or builds the value from parts for a type without a value[x]. */
function readValue(parameter, type) {
  const [, value] = Object.entries(parameter ?? {}).find(([key]) => key.startsWith('value')) ?? [];
  if (value !== undefined) return value;
  if (!parameter?.part) throw refusal('An operation needs a value.');
  const result = {};
  for (const part of parameter.part) {
    const name = nameChoice(type, part);
    const { isList, type: partType } = describeElement(type, name) ?? refuseElement(part.name);
    if (isList) (result[name] ??= []).push(readValue(part, partType));
    else result[name] = readValue(part, partType);
  }
  return result;
}

/** Returns the name that a choice of types has in JSON: https://hl7.org/fhir/R4/formats.html#choice */
function nameChoice(type, part) {
  const [value] = Object.keys(part).filter((key) => key.startsWith('value'));
  const chosen = value && part.name + value.slice('value'.length);
  return !describeElement(type, part.name) && describeElement(type, chosen) ? chosen : part.name;
}

function readIndex(index, max) {
  const value = index?.valueInteger;
  if (!Number.isInteger(value) || value < 0 || value > max) throw refusal('An index is outside its list.');
  return value;
}

function refuseElement(element) {
  throw refusal(`There is no element '${element}' at the path of an operation.`);
}

function refusal(text) {
  return new FhirError(400, text, 'Parameters.parameter');
}
