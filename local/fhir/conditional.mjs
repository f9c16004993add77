// Criteria that name a resource instead of its id: https://hl7.org/fhir/R4/http.html#ccreate

import { isResourceType } from '@medplum/core';
import { FhirError } from './outcome.mjs';
import { references, withReferences } from './references.mjs';
import { matchesOf } from './search.mjs';

/** The one match, undefined for none; several are refused. */
export function onlyMatch(store, type, criteria) {
  const found = matchesOf(store, type, criteria);
  if (found.length > 1) throw new FhirError(412, `Several resources of type ${type} fulfil the criteria.`);
  return found[0];
}

/**
 * The resource with `Type?criteria` references replaced by `Type/id`. Like Azure, in single writes and batches as well
 * as in transactions, and before anything of the bundle is written: https://hl7.org/fhir/R4/http.html#trules
 */
export function resolveConditionalReferences(store, resource) {
  if (![...references(resource)].some(({ reference }) => conditional(reference))) return resource;
  return withReferences(resource, (reference) => {
    const [type, criteria] = conditional(reference) ?? [];
    if (!type) return undefined;
    const match = onlyMatch(store, type, criteria);
    if (!match) throw new FhirError(400, `A conditional reference to ${type} has no match.`, 'Reference.reference');
    return `${type}/${match.id}`;
  });
}

function conditional(reference) {
  const mark = reference.indexOf('?');
  const type = reference.slice(0, mark);
  return mark > 0 && isResourceType(type) ? [type, reference.slice(mark + 1)] : undefined;
}
