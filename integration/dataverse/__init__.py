"""Dataverse: its requests, its metadata, its answers. Only client sends."""
