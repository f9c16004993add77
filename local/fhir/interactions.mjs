// The interactions with one resource: https://hl7.org/fhir/R4/http.html
// Every handler takes the context { store, readable, tokens, base }, the parameters of its route and the request, and
// returns { status, version } or { status, resource }, or throws a FhirError. Handlers are synchronous, so a request is
// atomic. Reads and searches see `readable`, which may lag behind the `store`.

import { randomUUID } from 'node:crypto';
import { deepEquals } from '@medplum/core';
import { Router } from '@medplum/fhir-router';
import { applyPatch } from 'rfc6902';
import { findSingleMatch } from './conditional.mjs';
import { requireId, requireType } from './definitions.mjs';
import { FhirError } from './outcome.mjs';
import { parseResource } from './parse.mjs';
import { applyParameters } from './patch.mjs';
import { readPage } from './paging.mjs';
import { searchset } from './search.mjs';
import { requireValid } from './validation.mjs';

const NEWEST_FIRST = { findPlace: (version) => version.number, compare: (a, b) => b - a };

// Both names are read: Core/Features/KnownQueryParameterNames.cs in microsoft/fhir-server.
const HARD_DELETE = ['hardDelete', '_hardDelete'];

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'];

const router = new Router();
for (const method of ['GET', 'HEAD']) {
  router.add(method, ':type', search);
  router.add(method, ':type/:id', read);
  router.add(method, ':type/:id/_history', readHistory);
  router.add(method, ':type/:id/_history/:number', readVersion);
}
router.add('POST', ':type/_search', search);
router.add('POST', ':type', create);
router.add('PUT', ':type/:id', update);
router.add('PUT', ':type', conditionalUpdate);
router.add('PATCH', ':type/:id', patch);
router.add('PATCH', ':type', conditionalPatch);
router.add('DELETE', ':type/:id', remove);
router.add('DELETE', ':type', conditionalRemove);

/** Executes { method, url, headers, body, id }. The URL is relative to the base; a create uses this id, if given. */
export function interact(context, request) {
  const { type, id, url, route } = locate(request.method, request.url);
  if (!route) throw refuseRoute(url.pathname, request.method);
  return route.handler(context, { ...route.params, type, id }, { ...request, params: url.searchParams });
}

/** Parses a request line: the resource type, the id if there is one, the criteria and the route. */
export function locate(method, relative) {
  const url = new URL(`http://localhost/${relative}`);
  const [type = '', id] = url.pathname.slice(1).split('/');
  requireType(type);
  const route = router.find(method, url.pathname);
  return { type, id: route?.params.id && id, url, route };
}

function refuseRoute(path, method) {
  const isKnown = METHODS.some((other) => router.find(other, path));
  return new FhirError(isKnown ? 405 : 404, `${method} is not supported here.`);
}

function search(context, { type }, { params }) {
  return { status: 200, resource: searchset(context, type, params) };
}

function read({ readable }, { type, id }, { headers }) {
  const version = requireExisting(readable, type, id);
  return { status: isModified(version, headers) ? 200 : 304, version };
}

/** https://hl7.org/fhir/R4/http.html#cread: If-None-Match takes precedence over If-Modified-Since. */
function isModified(version, headers) {
  if (headers['if-none-match']) return headers['if-none-match'] !== version.etag;
  const since = Date.parse(headers['if-modified-since'] ?? '');
  return Number.isNaN(since) || Date.parse(version.lastUpdated) > since;
}

function readVersion({ readable }, { type, id, number }) {
  const version = readable.versions(type, id).find((candidate) => String(candidate.number) === number);
  if (!version) throw new FhirError(404, `${type} '${id}' has no version '${number}'.`);
  if (version.deleted) throw new FhirError(410, `Version '${number}' of ${type} '${id}' is its deletion.`);
  return { status: 200, version };
}

/** The newest version first, in pages: https://hl7.org/fhir/R4/http.html#history */
function readHistory({ readable, tokens, base }, { type, id }, { params }) {
  const versions = readable.versions(type, id).toReversed();
  if (!versions.length) throw new FhirError(404, `${type} '${id}' does not exist.`);
  const { page, link } = readPage(tokens, versions, NEWEST_FIRST, params, `${base}/${type}/${id}/_history`);
  const entry = page.map((version) => ({
    fullUrl: `${base}/${type}/${id}`,
    ...(!version.deleted && { resource: version.resource }),
    request: { method: version.method, url: version.method === 'POST' ? type : `${type}/${id}` },
    response: { status: findStatus(version), etag: version.etag, lastModified: version.lastUpdated },
  }));
  const found = entry.length ? { entry } : undefined;
  return { status: 200, resource: { resourceType: 'Bundle', type: 'history', total: versions.length, link, ...found } };
}

function findStatus(version) {
  if (version.deleted) return '204';
  return version.number === 1 ? '201' : '200';
}

/** An id in the body is ignored: https://hl7.org/fhir/R4/http.html#create */
function create({ store }, { type }, { headers, body, id = randomUUID() }) {
  requireValid(type, body);
  const match = headers['if-none-exist'] && findSingleMatch(store, type, headers['if-none-exist']);
  if (match) return { status: 200, version: match };
  return { status: 201, version: store.write('POST', type, id, body) };
}

/**
 * Update, or create at this id: https://hl7.org/fhir/R4/http.html#upsert. Like Azure, it reads If-Match and no
 * If-None-Match: Update of Shared.Api/Controllers/FhirController.cs in microsoft/fhir-server has no such parameter. What
 * was deleted has a version, so If-Match compares it, and a PUT that brings it back answers 200: MergeInternalAsync of
 * SqlServer/Features/Storage/SqlServerFhirDataStore.cs.
 */
function update({ store }, { type, id }, { method, headers, body }) {
  requireId(id);
  requireValid(type, body);
  if (body.id !== id) throw new FhirError(400, 'The id of the body must be that of the URL.', `${type}.id`);
  const current = store.current(type, id);
  requireMatch(current, headers['if-match']);
  if (current && !current.deleted && sameContent(current.resource, body)) return { status: 200, version: current };
  return { status: current ? 200 : 201, version: store.write(method, type, id, body) };
}

/** https://hl7.org/fhir/R4/http.html#cond-update. Like Azure, it reads no If-Match (FhirController.cs). */
function conditionalUpdate(context, { type }, request) {
  const { body, params } = request;
  const match = findSingleMatch(context.store, type, params);
  if (match && body?.id && body.id !== match.id) {
    throw new FhirError(400, 'The id of the body must be that of the match.', `${type}.id`);
  }
  const id = match?.id ?? body?.id;
  if (id === undefined) return create(context, { type }, { ...request, headers: {} });
  return update(context, { type, id }, { ...request, headers: {}, body: { ...body, id } });
}

/** JSON Patch, or Parameters with a FHIRPath patch: https://hl7.org/fhir/R4/http.html#patch */
function patch(context, { type, id }, request) {
  const current = requireExisting(context.store, type, id);
  requireMatch(current, request.headers['if-match']);
  const resource = parseResource(applyDocument(current.resource, request.body));
  return update(context, { type, id }, { ...request, body: resource });
}

function applyDocument(resource, document) {
  if (document?.resourceType === 'Parameters') return applyParameters(resource, document);
  if (!Array.isArray(document)) throw new FhirError(400, 'The body is not a patch.');
  const failed = applyPatch(resource, document).find(Boolean);
  if (failed) throw new FhirError(400, `The patch cannot be applied: ${failed.name}.`);
  return resource;
}

function conditionalPatch(context, { type }, request) {
  const match = findSingleMatch(context.store, type, request.params);
  if (!match) throw new FhirError(404, `No ${type} fulfils the criteria.`);
  return patch(context, { type, id: match.id }, request);
}

/**
 * Deleting what does not exist succeeds: https://hl7.org/fhir/R4/http.html#delete. Like Azure, it reads no If-Match:
 * Delete of FhirController.cs in microsoft/fhir-server has no such parameter. With `hardDelete=true` the history goes,
 * too, also that of what was deleted before; then the id is as if it had never been used:
 * https://learn.microsoft.com/azure/healthcare-apis/fhir/rest-api-capabilities#delete-hard-and-soft-delete
 */
function remove({ store }, { type, id }, { params }) {
  requireId(id);
  if (isHardDelete(params)) {
    store.purge(type, id);
    return { status: 204 };
  }
  const current = store.live(type, id);
  return { status: 204, version: current && store.write('DELETE', type, id) };
}

function conditionalRemove(context, { type }, request) {
  const criteria = new URLSearchParams([...request.params].filter(([name]) => !HARD_DELETE.includes(name)));
  const match = findSingleMatch(context.store, type, criteria);
  return match ? remove(context, { type, id: match.id }, request) : { status: 204 };
}

function isHardDelete(params) {
  return HARD_DELETE.some((name) => params.get(name)?.toLowerCase() === 'true');
}

function requireExisting(store, type, id) {
  const version = store.current(type, id);
  if (!version) throw new FhirError(404, `${type} '${id}' does not exist.`);
  if (version.deleted) throw new FhirError(410, `${type} '${id}' was deleted.`);
  return version;
}

/**
 * https://hl7.org/fhir/R4/http.html#concurrency. Only a weak ETag is understood: Core/Features/Persistence/WeakETag.cs
 * in microsoft/fhir-server.
 */
function requireMatch(current, ifMatch) {
  if (!ifMatch) return;
  if (!/^W\/".+"$/.test(ifMatch)) throw new FhirError(400, 'The value of If-Match must be a weak ETag.');
  if (!current) throw new FhirError(404, 'The resource to change does not exist.');
  if (ifMatch !== current.etag) throw new FhirError(412, `The version is ${current.etag}, not the one in If-Match.`);
}

/** On Azure a PUT that changes nothing makes no version, whatever versionId and lastUpdated the body has. */
function sameContent(a, b) {
  return deepEquals(removeVersion(a), removeVersion(b));
}

function removeVersion({ meta: { versionId, lastUpdated, ...meta } = {}, ...rest }) {
  return { meta, ...rest };
}
