"""FHIR: what a delivery holds, how it is planned, what the server answered. Only client sends."""
