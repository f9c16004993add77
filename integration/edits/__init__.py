"""Changes to one resource in FHIR that come from Dataverse, in their place among the deliveries."""
