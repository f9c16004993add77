"""VERBS queue_changes and notify_dataverse: changes reported by FHIR, and to Dataverse."""
