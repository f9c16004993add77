"""The laptop's Dataverse: the Web API subset that a relay uses, refusing what Dataverse refuses."""
