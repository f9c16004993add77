"""VERB reconcile: compare the resources in FHIR with their rows in Dataverse, and repair the rows.

differences  what can be wrong with a row, and the table of counts
row_pages    one page of rows
walk         go through FHIR or through the rows, page by page, and mirror what differs
command      `python -m integration reconcile`
"""
