// Pages of searches and histories: https://hl7.org/fhir/R4/http.html#paging

import { randomUUID } from 'node:crypto';
import { FhirError } from './outcome.mjs';

// https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported: 10 matches a page, 1,000 at most
const DEFAULT_COUNT = 10;
const MAX_COUNT = 1000;
const MAX_TOKENS = 10_000;

/**
 * Keeps where each `ct` leads. Azure's names the last row of the page, not an offset, so that a write in between shifts
 * nothing (SqlServer/Features/Search/ContinuationToken.cs in microsoft/fhir-server). A token here ends after some
 * seconds: servers need not keep the pages of a search, https://hl7.org/fhir/R4/http.html#paging.
 */
export class PageTokens {
  #places = new Map(); // token -> { place, issued }, oldest first
  #findLifetime;

  /** `findLifetime` returns the seconds after which a token is refused. */
  constructor(findLifetime) {
    this.#findLifetime = findLifetime;
  }

  add(place) {
    const token = Buffer.from(randomUUID()).toString('base64url');
    this.#places.set(token, { place, issued: performance.now() });
    if (this.#places.size > MAX_TOKENS) this.#places.delete(this.#places.keys().next().value);
    return token;
  }

  /** Returns the place behind which the page begins. Throws 400 for a token that is unknown or has expired. */
  find(token) {
    const { place, issued } = this.#places.get(token) ?? {};
    if (!place || performance.now() - issued >= this.#findLifetime() * 1000) {
      throw new FhirError(400, 'The continuation token is invalid.');
    }
    return place;
  }

  clear() {
    this.#places.clear();
  }
}

/** Returns how many items a page may have; 0 asks for the total alone. */
export function pageSize(params) {
  if (params.get('_summary') === 'count') return 0;
  const text = params.get('_count') ?? String(DEFAULT_COUNT);
  if (!/^\d+$/.test(text)) throw new FhirError(400, "'_count' must be a whole number.");
  return Math.min(Number(text), MAX_COUNT);
}

/** Returns the page that `params` ask for, and its links. `items` are in the order of `compare`, by their places. */
export function readPage(tokens, items, { findPlace, compare }, params, url) {
  const count = pageSize(params);
  const after = params.has('ct') ? tokens.find(params.get('ct')) : undefined;
  const link = [{ relation: 'self', url: url + formatQuery(params) }];
  const page = [];
  if (count === 0) return { page, link };
  for (const item of items) {
    if (after && compare(findPlace(item), after) <= 0) continue;
    if (page.length === count) {
      const next = new URLSearchParams(params);
      next.set('ct', tokens.add(findPlace(page.at(-1))));
      link.push({ relation: 'next', url: url + formatQuery(next) });
      break;
    }
    page.push(item);
  }
  return { page, link };
}

export function formatQuery(params) {
  const text = params.toString();
  return text && `?${text}`;
}
