// Stores resources and all their versions in memory. The library's MemoryRepository scans all resources of a type for
// each search, names versions by UUID and cannot roll back. This store numbers versions, rolls them back, and indexes
// resources by identifier and reference. Each version is kept as JSON text, which is small and cannot be changed.

import { rewriteInstant } from './parse.mjs';
import { listReferences } from './references.mjs';

/** One version; a deletion is a version without JSON. */
class Version {
  constructor({ type, id, number, sequence, method, resource, lastUpdated }) {
    this.type = type;
    this.id = id;
    this.number = number;
    this.sequence = sequence; // its place among all that was written
    this.method = method;
    this.writtenAt = performance.now();
    this.lastUpdated = rewriteInstant(lastUpdated);
    this.json = resource && JSON.stringify(withMeta(resource, id, String(number), this.lastUpdated));
  }

  get deleted() {
    return this.json === undefined;
  }

  get etag() {
    return `W/"${this.number}"`;
  }

  get resource() {
    return JSON.parse(this.json);
  }
}

function withMeta({ resourceType, id: _, meta, ...content }, id, versionId, lastUpdated) {
  return { resourceType, id, meta: { ...meta, versionId, lastUpdated }, ...content };
}

export class Store {
  #types = new Map(); // type -> id -> versions, oldest first
  #live = new Map(); // type -> id -> newest version, in the order of writing; nothing that is deleted
  #sequence = 0;
  #index = new Map(); // type, parameter and value -> ids
  #purged = []; // { type, id, versions, purgedAt } of each hard delete, for reads that lag behind it
  #undoing = null; // what takes an unfinished transaction back, in the order of its writes
  #now;
  isIndexed = true;

  /** `now` returns the time of the server's clock. */
  constructor(now) {
    this.#now = now;
  }

  /** Returns what could be read at this moment of `performance.now`; without one, the store itself. */
  at(moment) {
    return moment === undefined ? this : new PastStore(this, moment);
  }

  /** Returns the ids of a type, those that are deleted or purged too. */
  listIds(type) {
    const purged = this.#purged.filter((removal) => removal.type === type).map(({ id }) => id);
    return new Set([...(this.#types.get(type)?.keys() ?? []), ...purged]);
  }

  /** Returns the versions that could be read at this moment: those of a purged resource until its purge. */
  versionsAt(type, id, moment) {
    const purged = this.#purged.find((removal) => (
      removal.type === type && removal.id === id && removal.purgedAt > moment
    ));
    const versions = purged ? purged.versions : this.versions(type, id);
    return versions.filter(({ writtenAt }) => writtenAt <= moment);
  }

  versions(type, id) {
    return this.#types.get(type)?.get(id) ?? [];
  }

  /** Returns the newest version, which may be a deletion. */
  current(type, id) {
    return this.versions(type, id).at(-1);
  }

  /** Returns the newest version of a resource, or undefined if it does not exist or is deleted. */
  live(type, id) {
    const version = this.current(type, id);
    return version?.deleted ? undefined : version;
  }

  /** Returns the newest versions of what is not deleted, in the order of writing. */
  all(type) {
    return this.#live.get(type)?.values() ?? [];
  }

  /** Returns ids of resources that may have this value. `kind` is 'identifier' (without system) or 'reference'. */
  findIds(type, kind, value) {
    return this.#index.get(`${type} ${kind} ${value}`) ?? [];
  }

  /** Adds a version; without a resource the version is a deletion. */
  write(method, type, id, resource) {
    const number = (this.current(type, id)?.number ?? 0) + 1;
    return this.insert({ method, type, id, number, resource, lastUpdated: this.#now().toISOString() });
  }

  /** Adds a version with a number and a time of its own, at its place among the others. */
  insert({ method, type, id, number, resource, lastUpdated }) {
    if (!this.#types.has(type)) {
      this.#types.set(type, new Map());
      this.#live.set(type, new Map());
    }
    const ids = this.#types.get(type);
    if (!ids.has(id)) ids.set(id, []);
    const versions = ids.get(id);
    this.#sequence += 1;
    const version = new Version({ type, id, number, sequence: this.#sequence, method, resource, lastUpdated });
    this.#removeFromIndex(versions.at(-1));
    versions.push(version);
    versions.sort((a, b) => a.number - b.number);
    this.#addToIndex(versions.at(-1));
    this.#undoing?.push({ type, undo: () => this.#remove(version) });
    return version;
  }

  /** Removes a resource with all its versions, so that its next version is 1 again. */
  purge(type, id) {
    const versions = this.versions(type, id);
    if (!versions.length) return;
    this.#removeFromIndex(versions.at(-1));
    this.#types.get(type).delete(id);
    const removal = { type, id, versions, purgedAt: performance.now() };
    this.#purged.push(removal);
    this.#undoing?.push({ type, undo: () => this.#restore(removal) });
  }

  /** Runs the work in a transaction: if it throws, versions, deletions and the index are rolled back. */
  runAtomically(work) {
    this.#undoing = [];
    try {
      return work();
    } catch (error) {
      for (const { undo } of this.#undoing.reverse()) undo();
      for (const type of new Set(this.#undoing.map(({ type: changed }) => changed))) this.#restoreOrder(type);
      throw error;
    } finally {
      this.#undoing = null;
    }
  }

  clear() {
    this.#types.clear();
    this.#live.clear();
    this.#index.clear();
    this.#purged = [];
  }

  countResources() {
    const byType = {};
    let resources = 0;
    let versions = 0;
    for (const [type, ids] of this.#types) {
      const live = this.#live.get(type).size;
      if (live) byType[type] = live;
      resources += live;
      for (const history of ids.values()) versions += history.length;
    }
    return { resources, versions, byType };
  }

  #remove(version) {
    const ids = this.#types.get(version.type);
    const versions = ids.get(version.id);
    this.#removeFromIndex(versions.at(-1));
    versions.splice(versions.indexOf(version), 1);
    if (versions.length) this.#addToIndex(versions.at(-1));
    else ids.delete(version.id);
  }

  #restore(removal) {
    this.#purged.splice(this.#purged.indexOf(removal), 1);
    this.#types.get(removal.type).set(removal.id, removal.versions);
    this.#addToIndex(removal.versions.at(-1));
  }

  #restoreOrder(type) {
    const live = [...this.#live.get(type)];
    this.#live.set(type, new Map(live.sort(([, a], [, b]) => a.sequence - b.sequence)));
  }

  #addToIndex(version) {
    if (!version.deleted) this.#live.get(version.type).set(version.id, version);
    for (const key of listIndexKeys(version)) {
      if (!this.#index.has(key)) this.#index.set(key, new Set());
      this.#index.get(key).add(version.id);
    }
  }

  #removeFromIndex(version) {
    if (version) this.#live.get(version.type).delete(version.id);
    for (const key of listIndexKeys(version)) {
      const ids = this.#index.get(key);
      ids.delete(version.id);
      if (!ids.size) this.#index.delete(key);
    }
  }
}

/** The store as it was at a moment, for reads. It has no index. */
class PastStore {
  #store;
  #moment;
  isIndexed = false;

  constructor(store, moment) {
    this.#store = store;
    this.#moment = moment;
  }

  versions(type, id) {
    return this.#store.versionsAt(type, id, this.#moment);
  }

  current(type, id) {
    return this.versions(type, id).at(-1);
  }

  live(type, id) {
    const version = this.current(type, id);
    return version?.deleted ? undefined : version;
  }

  all(type) {
    const found = [...this.#store.listIds(type)].map((id) => this.live(type, id)).filter(Boolean);
    return found.sort((a, b) => a.sequence - b.sequence);
  }
}

function listIndexKeys(version) {
  const keys = new Set();
  if (!version || version.deleted) return keys;
  const { type, resource } = version;
  for (const identifier of [resource.identifier ?? []].flat()) keys.add(`${type} identifier ${identifier.value}`);
  for (const { reference } of listReferences(resource)) keys.add(`${type} reference ${reference}`);
  return keys;
}
