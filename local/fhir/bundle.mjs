// Batch and transaction: https://hl7.org/fhir/R4/http.html#transaction, with the limits and behaviour of Azure.

import { randomUUID } from 'node:crypto';
import { findSingleMatch, resolveConditionalReferences } from './conditional.mjs';
import { interact, locate } from './interactions.mjs';
import { FhirError } from './outcome.mjs';
import { rewriteReferences } from './references.mjs';

// https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported
const MAX_ENTRIES = 500;
// Azure's order, which is the specification's too: https://hl7.org/fhir/R4/http.html#trules
const ORDER = ['DELETE', 'POST', 'PUT', 'PATCH', 'GET', 'HEAD'];
const LOGICS = ['parallel', 'sequential'];
const REQUEST = 'Bundle.entry.request';
const PROCESSES = new Map([['batch', processBatch], ['transaction', processTransaction]]);

/** Returns the response bundle. `fault(index)` is the refusal injected for that entry, if any. */
export function processBundle(context, bundle, headers, fault) {
  const process = PROCESSES.get(bundle?.type);
  if (bundle?.resourceType !== 'Bundle' || !process) {
    throw new FhirError(400, 'Only a batch or a transaction can be processed.', 'Bundle.type');
  }
  const entries = bundle.entry ?? [];
  if (entries.length > MAX_ENTRIES) {
    throw new FhirError(400, `A bundle may have ${MAX_ENTRIES} entries, not ${entries.length}.`, 'Bundle.entry');
  }

  const requests = entries.map((entry) => toRequest(context.base, entry));
  const results = process(context, requests, fault);
  const entry = results.map((result, index) => toResponse(context.base, result, requests[index].method));
  const logic = headers['x-bundle-processing-logic'];
  if (logic && !LOGICS.includes(logic.toLowerCase())) {
    const error = new FhirError(400, 'The value of x-bundle-processing-logic is invalid and was ignored.');
    entry.push(toResponse(context.base, error));
  }
  return { resourceType: 'Bundle', id: randomUUID(), type: `${bundle.type}-response`, entry };
}

/** Executes each entry independently. After a 429, Azure answers 429 to all later entries without executing them. */
function processBatch(context, requests, fault) {
  const prepared = requests.map((request) => attempt(() => prepare(context, request)));
  const results = [];
  let throttled;
  for (const index of executionOrder(requests)) {
    const refusal = throttled ?? fault(index);
    if (refusal?.status === 429) throttled = refusal;
    results[index] = refusal ?? attempt(() => {
      if (prepared[index] instanceof FhirError) throw prepared[index];
      return interact(context, prepared[index]);
    });
  }
  return results;
}

/** Executes all entries or none. Ids and references are resolved before the first write. */
function processTransaction(context, requests, fault) {
  const targets = new Set();
  const placeholders = new Map();
  const resolved = requests.map((request, index) => runEntry(index, () => {
    const refusal = fault(index);
    if (refusal) throw refusal;
    return resolveTarget(context, prepare(context, request), targets, placeholders);
  }));
  return context.store.runAtomically(() => {
    const results = [];
    for (const index of executionOrder(requests)) {
      const { match, ...request } = resolved[index];
      const body = request.body && rewriteReferences(request.body, (reference) => placeholders.get(reference));
      results[index] = match
        ? { status: 200, version: match }
        : runEntry(index, () => interact(context, { ...request, body }));
    }
    return results;
  });
}

/** Checks what both kinds of bundle refuse, and resolves conditional references against the current contents. */
function prepare({ store }, request) {
  const { method, url, body } = request;
  if (!ORDER.includes(method)) throw new FhirError(400, 'The entry has no valid request.method.', `${REQUEST}.method`);
  if (!url) throw new FhirError(400, 'The entry has no request.url that can be processed.', `${REQUEST}.url`);
  if (method === 'POST' && url.includes('_search')) throw new FhirError(400, 'A search by POST cannot be an entry.');
  // Shared.Api/Features/Resources/Bundle/BundleHandler.cs in microsoft/fhir-server: no route is a 404 of the entry.
  if (!locate(method, url).route) throw new FhirError(404, `${method} is not supported at this address.`);
  return body ? { ...request, body: resolveConditionalReferences(store, body) } : request;
}

/**
 * Resolves the resource of a transaction's entry and the meaning of its fullUrl, and refuses a second entry for the
 * same resource. On Azure only the fullUrl of a create or a conditional update can be referred to.
 */
function resolveTarget({ store }, request, targets, placeholders) {
  const { method, headers, body, fullUrl } = request;
  const { type, id, url } = locate(method, request.url);
  if (method === 'GET' || method === 'HEAD') return request;
  if (body?.resourceType === 'Bundle') throw new FhirError(400, 'A bundle cannot be an entry of a transaction.');
  if (!id && method === 'DELETE') throw new FhirError(400, 'A conditional delete cannot be an entry of a transaction.');

  const criteria = method === 'POST' ? headers['if-none-exist'] : url.search.slice(1);
  const match = !id && (criteria || method !== 'POST') ? findSingleMatch(store, type, criteria) : undefined;
  const resolvedId = id ?? match?.id ?? ((method === 'PUT' && body?.id) || randomUUID());

  addTarget(targets, `${type}/${resolvedId}`);
  if (criteria && !id && !match) addTarget(targets, `${type}?${criteria}`);
  if (!id && fullUrl && method !== 'PATCH') placeholders.set(fullUrl, `${type}/${resolvedId}`);
  if (method === 'POST') return { ...request, headers: {}, id: resolvedId, match };
  if (method === 'PUT' && !id) return toPut(request, type, resolvedId, match);
  return request;
}

function toPut(request, type, id, match) {
  const { body } = request;
  if (match && body?.id && body.id !== id) {
    throw new FhirError(400, 'The id of the body must be that of the match.', `${type}.id`);
  }
  return { ...request, headers: {}, url: `${type}/${id}`, body: { ...body, id } };
}

function addTarget(targets, target) {
  if (targets.has(target)) {
    throw new FhirError(400, 'A resource may appear only once in a transaction.', `${REQUEST}.url`);
  }
  targets.add(target);
}

function executionOrder(requests) {
  const rank = ({ method }) => ORDER.indexOf(method);
  return requests.map((_, index) => index).sort((a, b) => rank(requests[a]) - rank(requests[b]));
}

function toRequest(base, entry) {
  const { method, url = '', ifMatch, ifNoneMatch, ifModifiedSince, ifNoneExist } = entry?.request ?? {};
  return {
    method,
    url: String(url).replace(`${base}/`, '').replace(/^\//, ''),
    headers: {
      'if-match': ifMatch,
      'if-none-match': ifNoneMatch,
      'if-modified-since': ifModifiedSince,
      'if-none-exist': ifNoneExist,
    },
    body: method === 'PATCH' ? parsePatch(entry.resource) : entry?.resource,
    fullUrl: entry?.fullUrl,
  };
}

/** In a bundle a JSON Patch is the data of a Binary: https://hl7.org/fhir/R4/http.html#patch */
function parsePatch(resource) {
  if (resource?.resourceType !== 'Binary' || resource.contentType !== 'application/json-patch+json') return resource;
  try {
    return JSON.parse(Buffer.from(resource.data ?? '', 'base64').toString());
  } catch {
    return undefined;
  }
}

function toResponse(base, { status, version, resource, outcome }, method) {
  const stored = version && !version.deleted;
  return {
    ...((stored || resource) && status !== 304 && method !== 'HEAD' && { resource: resource ?? version.resource }),
    response: {
      status: String(status),
      ...(version && { etag: version.etag, lastModified: version.lastUpdated }),
      ...(stored && { location: `${base}/${version.type}/${version.id}/_history/${version.number}` }),
      ...(outcome && { outcome }),
    },
  };
}

function attempt(work) {
  try {
    return work();
  } catch (error) {
    if (error instanceof FhirError) return error;
    throw error;
  }
}

function runEntry(index, work) {
  const result = attempt(work);
  if (result instanceof FhirError) throw result.within(index);
  return result;
}
