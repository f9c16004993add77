"""FHIRPath for maps: compiled once, evaluated by fhirpathpy or by a faster path of our own."""
