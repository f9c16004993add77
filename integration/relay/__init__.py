"""VERB process: plan a delivery, write each unit to the FHIR server, record every result."""
