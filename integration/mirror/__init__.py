"""VERB mirror: the current state of one resource in FHIR becomes its rows in Dataverse."""
