"""FHIRPath for maps: each path is compiled once; fhirpathpy evaluates what the fast path cannot.

Only this package knows fhirpathpy: `parser` its syntax trees, `library` its values and its model.
"""
