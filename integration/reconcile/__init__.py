"""VERB reconcile: what FHIR has and Dataverse shows are compared, and what differs is mirrored.

differences  what is missing, behind or left over
walk         page by page through FHIR, or through the rows
command      `python -m integration reconcile`
"""
