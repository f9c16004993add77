"""VERB reconcile: compare the resources in FHIR with their rows in Dataverse, and repair the rows.

`python -m integration reconcile` and the jobs of kind reconcile do the same by it.

differences  what can be wrong with a row, and the table of counts
row_pages    one page of rows
walk         go through FHIR or through the rows, page by page, and mirror what differs
plan         which walks a run takes
job          the slices of a job
"""
