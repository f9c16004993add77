"""Changes from FHIR, whoever made them, and changes told to Dataverse."""
