// Resolves criteria that name a resource instead of its id: https://hl7.org/fhir/R4/http.html#ccreate

import { isResourceType } from '@medplum/core';
import { FhirError } from './outcome.mjs';
import { listReferences, rewriteReferences } from './references.mjs';
import { findMatches } from './search.mjs';

/** Returns the single match, or undefined without one. Throws 412 for several. */
export function findSingleMatch(store, type, criteria) {
  const found = findMatches(store, type, criteria);
  if (found.length > 1) throw new FhirError(412, `Several resources of type ${type} fulfil the criteria.`);
  return found[0];
}

/**
 * Replaces `Type?criteria` references by `Type/id`. Like Azure, it does so in single writes and batches as well as in
 * transactions, before anything of the bundle is written: https://hl7.org/fhir/R4/http.html#trules
 */
export function resolveConditionalReferences(store, resource) {
  if (![...listReferences(resource)].some(({ reference }) => parseConditional(reference))) return resource;
  return rewriteReferences(resource, (reference) => {
    const [type, criteria] = parseConditional(reference) ?? [];
    if (!type) return undefined;
    const match = findSingleMatch(store, type, criteria);
    if (!match) throw new FhirError(400, `A conditional reference to ${type} has no match.`, 'Reference.reference');
    return `${type}/${match.id}`;
  });
}

function parseConditional(reference) {
  const position = reference.indexOf('?');
  const type = reference.slice(0, position);
  return position > 0 && isResourceType(type) ? [type, reference.slice(position + 1)] : undefined;
}
