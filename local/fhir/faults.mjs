// Injects faults on demand, so that a test can see how a client handles them.

import { STATUS_CODES } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { FhirError } from './outcome.mjs';

const KINDS = ['status', 'slow', 'cutoff', 'broken', 'reset', 'lost-reply', 'gateway'];
// The bundle is executed, but the response bundle is wrong.
const BUNDLE_KINDS = ['missing-entry', 'extra-entry', 'status-text'];

export class Faults {
  #queue = [];
  injected = 0;

  /**
   * Adds a fault for the `next` requests (of this `method`, below this `path`, if given). By `kind`:
   * 'status' answers `status` and `retryAfter`; 'slow' waits `delayMs` first; 'cutoff' closes the connection in the
   * middle of the body; 'broken' sends half of the JSON with a matching length; 'reset' closes the connection before
   * the request is executed, 'lost-reply' afterwards. `retryHeader` is the only header with `retryAfter`; without it
   * both headers are sent. With `scope` 'entry', a bundle's `entries`, or a `fraction` of them, get the status and the
   * others are executed. 'gateway' answers `status` (404) as what stands before the server does, which has not heard of
   * the request: a page for people, or with `format` 'json' an object that is no FHIR. In a response bundle, 'missing-entry' omits the last entry, 'extra-entry' adds one, and
   * 'status-text' adds text to each status.
   */
  add(fault) {
    const { next = 1, kind = 'status', scope = 'request' } = fault;
    const { status = kind === 'gateway' ? 404 : 503 } = fault;
    const supported = BUNDLE_KINDS.includes(kind)
      || (KINDS.includes(kind) && (scope === 'request' || (scope === 'entry' && kind === 'status')));
    if (!supported || !(next > 0) || !(status >= 400 && status < 600)) {
      throw new FhirError(400, 'This fault is not supported.');
    }
    this.#queue.push({ ...fault, kind, status, scope, remaining: next });
  }

  clear() {
    this.#queue = [];
  }

  /** Takes the first fault that matches the request, if any; `path` is relative to the base. */
  take(method, path) {
    const isBundle = method === 'POST' && path === '';
    const fault = this.#queue.find((candidate) => (
      (!candidate.method || candidate.method === method)
      && (!candidate.path || path.startsWith(candidate.path))
      && ((candidate.scope === 'request' && !BUNDLE_KINDS.includes(candidate.kind)) || isBundle)
    ));
    if (fault) this.injected += 1;
    if (fault && --fault.remaining === 0) this.#queue.splice(this.#queue.indexOf(fault), 1);
    return fault;
  }
}

/** Applies the fault before the request is executed: refuses, waits, or returns true to reset the connection. */
export async function applyBefore(fault) {
  if (fault?.kind === 'slow') await sleep(fault.delayMs ?? 0);
  if (fault?.kind === 'status' && fault.scope === 'request') throw refusal(fault);
  return fault?.kind === 'reset';
}

/**
 * Returns the response of a gateway, if the fault is one. Application Gateway and the front ends of App Service answer
 * with pages: https://learn.microsoft.com/azure/application-gateway/http-response-codes. API Management answers a path
 * that it does not know with JSON of its own:
 * https://learn.microsoft.com/azure/api-management/api-management-error-handling-policies
 */
export function answerAsGateway(fault) {
  if (fault?.kind !== 'gateway') return undefined;
  const { status, format } = fault;
  if (format === 'json') {
    const text = JSON.stringify({ statusCode: status, message: STATUS_CODES[status] });
    return { status, text, headers: { 'Content-Type': 'application/json' } };
  }
  const title = `${status} ${STATUS_CODES[status]}`;
  const text = `<html><head><title>${title}</title></head><body><h1>${title}</h1></body></html>`;
  return { status, text, headers: { 'Content-Type': 'text/html' } };
}

/** Returns a function from an entry's index to the refusal that the fault causes there, or undefined. */
export function refuseEntries(fault) {
  if (fault?.scope !== 'entry') return () => undefined;
  const { entries, fraction = 0 } = fault;
  const spread = (index) => Math.floor((index + 1) * fraction) > Math.floor(index * fraction);
  return (index) => ((entries ? entries.includes(index) : spread(index)) ? refusal(fault) : undefined);
}

/** Returns both headers that Azure sends when it throttles, also on the 200 around a throttled entry. */
export function retryHeaders(fault) {
  if (!fault?.retryAfter) return {};
  const headers = {
    'Retry-After': String(Math.ceil(fault.retryAfter)), 'x-ms-retry-after-ms': String(fault.retryAfter * 1000),
  };
  return fault.retryHeader ? { [fault.retryHeader]: headers[fault.retryHeader] } : headers;
}

/** Returns the response bundle as the fault changes it. */
export function distortBundle(fault, bundle) {
  switch (fault?.kind) {
    case 'missing-entry':
      return { ...bundle, entry: bundle.entry.slice(0, -1) };
    case 'extra-entry':
      return { ...bundle, entry: [...bundle.entry, { response: { status: '200' } }] };
    case 'status-text':
      return { ...bundle, entry: bundle.entry.map(addStatusText) };
    default:
      return bundle;
  }
}

/** Writes the status as some servers do: "400 Bad Request". */
function addStatusText(entry) {
  const { status } = entry.response;
  return { ...entry, response: { ...entry.response, status: `${status} ${STATUS_CODES[status]}` } };
}

function refusal({ status }) {
  return new FhirError(status, 'The server was told to refuse this.');
}
