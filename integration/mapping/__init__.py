"""Which resource is which Dataverse table, which element which column: data and an engine."""
