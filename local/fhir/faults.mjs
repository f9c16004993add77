// Failures on demand, so that a test can see what a client makes of them.

import { STATUS_CODES } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { FhirError } from './outcome.mjs';

const KINDS = ['status', 'slow', 'cutoff', 'broken', 'reset', 'lost-reply'];
// What is done as asked, and answered with a bundle that is not what it should be.
const BUNDLE_KINDS = ['missing-entry', 'extra-entry', 'status-text'];

export class Faults {
  #queue = [];
  met = 0;

  /**
   * For the `next` requests (of this `method`, below this `path`, if given): `kind` 'status' answers `status` and
   * `retryAfter`, 'slow' waits `delayMs` first, 'cutoff' ends the connection in the middle of the body, 'broken' sends
   * half of the JSON as if it were all, 'reset' ends the connection unanswered and undone, 'lost-reply' unanswered but
   * done. `retryHeader` is the one header that tells `retryAfter`: without it, both do. With `scope` 'entry' a bundle's
   * `entries`, or a `fraction` of them, answer the status, and the others are carried out. Of a bundle that is carried
   * out, 'missing-entry' leaves the last answer out, 'extra-entry' adds one, and 'status-text' adds text to each status.
   */
  add(fault) {
    const { next = 1, kind = 'status', status = 503, scope = 'request' } = fault;
    const known = BUNDLE_KINDS.includes(kind)
      || (KINDS.includes(kind) && (scope === 'request' || (scope === 'entry' && kind === 'status')));
    if (!known || !(next > 0) || !(status >= 400 && status < 600)) throw new FhirError(400, 'This fault is not known.');
    this.#queue.push({ ...fault, kind, status, scope, left: next });
  }

  clear() {
    this.#queue = [];
  }

  /** The fault that this request meets, if any; path is relative to the base. */
  take(method, path) {
    const isBundle = method === 'POST' && path === '';
    const fault = this.#queue.find((one) => (
      (!one.method || one.method === method)
      && (!one.path || path.startsWith(one.path))
      && ((one.scope === 'request' && !BUNDLE_KINDS.includes(one.kind)) || isBundle)
    ));
    if (fault) this.met += 1;
    if (fault && --fault.left === 0) this.#queue.splice(this.#queue.indexOf(fault), 1);
    return fault;
  }
}

/** What the fault does before the work: it may refuse, wait, or return true when there is to be no answer at all. */
export async function before(fault) {
  if (fault?.kind === 'slow') await sleep(fault.delayMs ?? 0);
  if (fault?.kind === 'status' && fault.scope === 'request') throw refusal(fault);
  return fault?.kind === 'reset';
}

/** For each index of a bundle the refusal that this fault wants, or undefined. */
export function entryRefusals(fault) {
  if (fault?.scope !== 'entry') return () => undefined;
  const { entries, fraction = 0 } = fault;
  const spread = (index) => Math.floor((index + 1) * fraction) > Math.floor(index * fraction);
  return (index) => ((entries ? entries.includes(index) : spread(index)) ? refusal(fault) : undefined);
}

/** Both headers, as Azure sends them when it throttles, also on the 200 around a throttled entry. */
export function retryHeaders(fault) {
  if (!fault?.retryAfter) return {};
  const headers = {
    'Retry-After': String(Math.ceil(fault.retryAfter)), 'x-ms-retry-after-ms': String(fault.retryAfter * 1000),
  };
  return fault.retryHeader ? { [fault.retryHeader]: headers[fault.retryHeader] } : headers;
}

/** The response bundle as the fault has it told. */
export function distorted(fault, bundle) {
  switch (fault?.kind) {
    case 'missing-entry':
      return { ...bundle, entry: bundle.entry.slice(0, -1) };
    case 'extra-entry':
      return { ...bundle, entry: [...bundle.entry, { response: { status: '200' } }] };
    case 'status-text':
      return { ...bundle, entry: bundle.entry.map(withText) };
    default:
      return bundle;
  }
}

/** As other servers tell a status: "400 Bad Request". */
function withText(entry) {
  const { status } = entry.response;
  return { ...entry, response: { ...entry.response, status: `${status} ${STATUS_CODES[status]}` } };
}

function refusal({ status }) {
  return new FhirError(status, 'The server was told to refuse this.');
}
