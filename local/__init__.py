"""The services that the app needs, for a laptop: storage, FHIR, Dataverse and a host."""
