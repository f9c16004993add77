// The elements of type Reference in a resource: https://hl7.org/fhir/R4/references.html

/** Every element that holds a literal `reference`, wherever it stands in the value. */
export function* references(value) {
  if (value === null || typeof value !== 'object') return;
  if (typeof value.reference === 'string') yield value;
  for (const child of Object.values(value)) yield* references(child);
}

/** A copy of the resource in which each reference has become what `rewrite` returns, or stays if that is undefined. */
export function withReferences(resource, rewrite) {
  const copy = structuredClone(resource);
  for (const element of references(copy)) element.reference = rewrite(element.reference) ?? element.reference;
  return copy;
}
