// What a test may change while the server runs: `POST /control/settings` with some of these, answered with all of them.
// `POST /control/reset` goes back to how the server was started.

import { FhirError } from './outcome.mjs';

/** Seconds by which the clock is ahead, or behind if negative. Azure's need not be that of its client. */
const CLOCK_OFFSET = 'clockOffset';
/**
 * Seconds by which reads, histories and searches lag behind writes. Microsoft's server reads from replicas of its
 * database where they are on: SqlServer/Features/Storage/SqlRetry/SqlRetryService.cs in microsoft/fhir-server. Writes,
 * their conditions and If-Match see the newest state.
 */
const READ_LAG = 'readLag';
/** Whether reads stay at the state of the moment in which this was set, so that a test need not race the lag. */
const HOLD_READS = 'holdReads';
/** Seconds after which the `ct` of a `next` link is refused. */
const TOKEN_LIFETIME = 'tokenLifetime';

const isSeconds = (value) => Number.isFinite(value) && value >= 0;
const CHECKS = {
  [CLOCK_OFFSET]: Number.isFinite,
  [READ_LAG]: isSeconds,
  [HOLD_READS]: (value) => typeof value === 'boolean',
  [TOKEN_LIFETIME]: isSeconds,
};

export class Settings {
  #initial;
  #heldAt = 0;
  values;

  /** Takes the values to start with from FHIR_CLOCK_OFFSET and FHIR_READ_LAG, in seconds. */
  constructor({ FHIR_CLOCK_OFFSET = '0', FHIR_READ_LAG = '0' }) {
    const values = { [CLOCK_OFFSET]: Number(FHIR_CLOCK_OFFSET), [READ_LAG]: Number(FHIR_READ_LAG) };
    this.#initial = { ...values, [HOLD_READS]: false, [TOKEN_LIFETIME]: 3600 };
    this.reset();
    this.change(this.#initial);
  }

  change(values) {
    for (const [name, value] of Object.entries(values)) {
      if (!Object.hasOwn(CHECKS, name) || !CHECKS[name](value)) {
        throw new FhirError(400, `The setting '${name}' does not exist, or cannot have this value.`);
      }
    }
    if (values[HOLD_READS]) this.#heldAt = performance.now();
    this.values = { ...this.values, ...values };
  }

  reset() {
    this.values = this.#initial;
  }

  /** Returns the time of the server's clock. */
  now() {
    return new Date(Date.now() + this.values[CLOCK_OFFSET] * 1000);
  }

  /** Returns the moment (of `performance.now`) up to which reads see writes; undefined if they see all of them. */
  findReadLimit() {
    if (this.values[HOLD_READS]) return this.#heldAt;
    return this.values[READ_LAG] ? performance.now() - this.values[READ_LAG] * 1000 : undefined;
  }
}
