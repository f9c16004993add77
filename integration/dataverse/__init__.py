"""Dataverse: its requests, metadata and responses. Only `client` sends anything."""
