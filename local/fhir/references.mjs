// Finds and rewrites the references in a resource: https://hl7.org/fhir/R4/references.html

/** Yields every element with a literal `reference`, at any depth. */
export function* listReferences(value) {
  if (value === null || typeof value !== 'object') return;
  if (typeof value.reference === 'string') yield value;
  for (const child of Object.values(value)) yield* listReferences(child);
}

/** Returns a copy in which each reference is replaced by what `rewrite` returns, unless that is undefined. */
export function rewriteReferences(resource, rewrite) {
  const copy = structuredClone(resource);
  for (const element of listReferences(copy)) element.reference = rewrite(element.reference) ?? element.reference;
  return copy;
}
