// Makes requests wait, as at a server whose database is elsewhere. While one waits, others are answered.

import { setTimeout as sleep } from 'node:timers/promises';
import { FhirError } from './outcome.mjs';

export class Latency {
  #requestMs = 0;
  #entryMs = 0;

  /** Sets the milliseconds that each request takes, and each entry of a bundle besides; without them, none. */
  set({ requestMs = 0, entryMs = 0 }) {
    if (!(requestMs >= 0 && entryMs >= 0)) throw new FhirError(400, 'The milliseconds must be numbers from 0.');
    this.#requestMs = requestMs;
    this.#entryMs = entryMs;
  }

  async wait(body) {
    const entries = Array.isArray(body?.entry) ? body.entry.length : 0;
    const delay = this.#requestMs + this.#entryMs * entries;
    if (delay) await sleep(delay);
  }
}
