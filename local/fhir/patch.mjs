// FHIRPath patch: https://hl7.org/fhir/R4/fhirpatch.html. Paths are elements, [n] and where(…): what senders write.

import { evalFhirPath } from '@medplum/core';
import { elementOf } from './definitions.mjs';
import { FhirError } from './outcome.mjs';

const STEP = /^(?:\.?([A-Za-z_]\w*)(?!\w*\()|\[(\d+)\]|\.where\(((?:[^()']|'[^']*')*)\))/;

/** The resource changed by the operations, one after the other. */
export function applyParameters(resource, { parameter = [] }) {
  for (const { name, part = [] } of parameter) {
    if (name !== 'operation') throw refusal("A parameter of a patch is named 'operation'.");
    const parts = Object.fromEntries(part.map((one) => [one.name, one]));
    const apply = OPERATIONS[parts.type?.valueCode];
    if (!apply || !parts.path?.valueString) throw refusal('An operation needs a known type and a path.');
    apply(resource, parts.path.valueString, parts);
  }
  return resource;
}

const OPERATIONS = {
  add(resource, path, { name, value }) {
    const { value: owner, type } = only(resource, path);
    const element = name?.valueString;
    const { isList, type: own } = elementOf(type, element) ?? unknown(element);
    if (isList) (owner[element] ??= []).push(valueOf(value, own));
    else owner[element] = valueOf(value, own);
  },

  insert(resource, path, { value, index }) {
    const { list, type } = listAt(resource, path);
    list.splice(place(index, list.length), 0, valueOf(value, type));
  },

  delete(resource, path) {
    const found = find(resource, path);
    if (found.length > 1) throw refusal('The path of a deletion has several matches.');
    if (found.length) remove(found[0]);
  },

  replace(resource, path, { value }) {
    const { holder, key, type } = only(resource, path);
    holder[key] = valueOf(value, type);
  },

  move(resource, path, { source, destination }) {
    const { list } = listAt(resource, path);
    const [moved] = list.splice(place(source, list.length - 1), 1);
    list.splice(place(destination, list.length), 0, moved);
  },
};

/** Every element at the path: its value and type, and where it is held. */
function find(resource, path) {
  let rest = path;
  let found;
  while (rest) {
    const [text, name, index, criterion] = STEP.exec(rest) ?? [];
    if (!text) throw refusal('The path of an operation is not understood.');
    rest = rest.slice(text.length);
    if (!found) found = name === resource.resourceType ? [{ value: resource, type: name }] : unknown(name);
    else if (name) found = found.flatMap((one) => [...children(one, name)]);
    else if (index) found = found.slice(Number(index), Number(index) + 1);
    else found = found.filter(({ value }) => evalFhirPath(criterion, value)[0] === true);
  }
  return found ?? [];
}

function* children({ value: owner, type }, name) {
  const element = elementOf(type, name) ?? unknown(name);
  const value = owner[name];
  if (Array.isArray(value)) {
    for (const [key, item] of value.entries()) {
      yield { value: item, type: element.type, holder: value, key, owner, name };
    }
  } else if (value !== undefined) {
    yield { value, type: element.type, holder: owner, key: name };
  }
}

function only(resource, path) {
  const found = find(resource, path);
  if (found.length !== 1) throw refusal(`The path of an operation has ${found.length} matches, not one.`);
  return found[0];
}

function listAt(resource, path) {
  const [first] = find(resource, path);
  if (!Array.isArray(first?.holder)) throw refusal('The path of an operation names no list.');
  return { list: first.holder, type: first.type };
}

function remove({ holder, key, owner, name }) {
  if (!Array.isArray(holder)) delete holder[key];
  else holder.splice(key, 1);
  if (owner && !holder.length) delete owner[name];
}

/** value[x], or parts for a type that no value[x] has. */
function valueOf(parameter, type) {
  const [, value] = Object.entries(parameter ?? {}).find(([key]) => key.startsWith('value')) ?? [];
  if (value !== undefined) return value;
  if (!parameter?.part) throw refusal('An operation needs a value.');
  const made = {};
  for (const part of parameter.part) {
    const { isList, type: own } = elementOf(type, part.name) ?? unknown(part.name);
    if (isList) (made[part.name] ??= []).push(valueOf(part, own));
    else made[part.name] = valueOf(part, own);
  }
  return made;
}

function place(index, most) {
  const value = index?.valueInteger;
  if (!Number.isInteger(value) || value < 0 || value > most) throw refusal('An index is outside its list.');
  return value;
}

function unknown(element) {
  throw refusal(`There is no element '${element}' at the path of an operation.`);
}

function refusal(text) {
  return new FhirError(400, text, 'Parameters.parameter');
}
