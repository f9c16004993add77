// What $import makes of its lines, without its files and its waiting: `POST /control/import` with { mode, resources }.
// It answers { loaded, errors }, an error by the position of its resource.
// https://learn.microsoft.com/azure/healthcare-apis/fhir/import-data
// Core/Features/Operations/Import and SqlServer/Features/Operations/Import in microsoft/fhir-server

import { deepEquals } from '@medplum/core';
import { requireId, requireType } from './definitions.mjs';
import { FhirError } from './outcome.mjs';
import { parseResource, rewriteInstant } from './parse.mjs';
import { requireValid } from './validation.mjs';

const DELETED = 'http://azurehealthcareapis.com/data-extensions/deleted-state';
const MAX_AHEAD_MS = 10_000; // of lastUpdated
// Writes past the API name no method; a history shows an import as a PUT.
const METHOD = 'PUT';

const MODES = {
  // For an empty server: versions begin at 1, whatever a resource says, and what is there is a duplicate.
  InitialLoad(store, now, { type, id, resource }) {
    if (store.current(type, id)) throw refuseDuplicate(type, id);
    store.write(METHOD, type, id, resource);
  },
  // Keeps versions and times, in any order of the versions.
  IncrementalLoad(store, now, line) {
    const { type, id, meta } = line;
    if (!meta.lastUpdated) {
      store.write(METHOD, type, id, line.resource);
      return;
    }
    const lastUpdated = new Date(meta.lastUpdated);
    if (lastUpdated - now > MAX_AHEAD_MS) throw new FhirError(400, 'The lastUpdated is in the future.');
    const number = /^[1-9]\d*$/.test(meta.versionId ?? '') ? Number(meta.versionId) : findNumber(store, line, lastUpdated);
    if (isStored(store, line, number, lastUpdated)) return;
    store.insert({ method: METHOD, type, id, number, resource: line.resource, lastUpdated: lastUpdated.toISOString() });
  },
};

export function importResources(store, now, { mode = 'IncrementalLoad', resources = [] }) {
  const load = MODES[mode];
  if (!load) throw new FhirError(400, `The mode '${mode}' does not exist.`);
  const errors = [];
  const unversioned = new Set(); // the ids of lines that say no time: the second of one id is a duplicate
  let loaded = 0;
  resources.forEach((given, position) => {
    try {
      const line = readLine(given, mode);
      const name = `${line.type}/${line.id}`;
      if (!line.meta.lastUpdated && unversioned.has(name)) throw refuseDuplicate(line.type, line.id);
      load(store, now, line);
      if (!line.meta.lastUpdated) unversioned.add(name);
      loaded += 1;
    } catch (error) {
      if (!(error instanceof FhirError)) throw error;
      errors.push({ position, text: error.message });
    }
  });
  return { loaded, errors };
}

/** Parses a resource. One that is marked as deleted has no content: incremental imports bring deletions. */
function readLine(given, mode) {
  const resource = parseResource(given);
  const { resourceType: type, id, meta = {} } = resource;
  requireType(type);
  requireId(id ?? '');
  const isDeleted = meta.extension?.some(({ url, valueString }) => url === DELETED && valueString === 'soft-deleted');
  if (isDeleted && mode === 'InitialLoad') throw new FhirError(400, 'Only an incremental import brings deletions.');
  if (!isDeleted) requireValid(type, resource);
  return { type, id, meta, resource: isDeleted ? undefined : resource };
}

/** Returns the number of a version that says its time alone: it must be newer than what is there. */
function findNumber(store, { type, id }, lastUpdated) {
  const current = store.current(type, id);
  if (current && new Date(current.lastUpdated) >= lastUpdated) throw refuseConflict(type, id);
  return (current?.number ?? 0) + 1;
}

/** Returns whether this version is there already. Throws if another one is, or if times and numbers disagree. */
function isStored(store, { type, id, resource }, number, lastUpdated) {
  for (const version of store.versions(type, id)) {
    const sameTime = version.lastUpdated === rewriteInstant(lastUpdated.toISOString());
    if (version.number === number) {
      if (!sameTime || !hasContent(version, resource)) throw refuseConflict(type, id);
      return true;
    }
    if (sameTime || version.number < number !== new Date(version.lastUpdated) < lastUpdated) {
      throw refuseConflict(type, id);
    }
  }
  return false;
}

function hasContent(version, resource) {
  if (version.deleted || !resource) return version.deleted && !resource;
  const { meta: _, ...stored } = version.resource;
  const { meta: __, ...given } = resource;
  return deepEquals(stored, given);
}

function refuseDuplicate(type, id) {
  return new FhirError(409, `Failed to import duplicate resource, resource id: ${id}, type: ${type}.`);
}

function refuseConflict(type, id) {
  return new FhirError(409, `Failed to import resource with version conflict, resource id: ${id}, type: ${type}.`);
}
