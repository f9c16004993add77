"""VERB answer_request: respond to one OData request from FHIR, reading and writing. No copies.

answer        which operation an address and a method ask for
query_plan    how the rows of a query are read: what FHIR searches for, what is evaluated here; pure
pushdown      the FHIR search for one part of a $filter; pure
read          entities, collections, counts
write         create, change, delete
entity_type   an entity map as an entity type, and a resource as the values of its row; pure
row_keys      the key of a resource's row, and the resource of a key
fhir_pages    pages of a search that are small enough for a worker to hold many
skip_token    the position at which the next page begins, signed; pure
page_starts   where the pages of lists begin, as far as a worker remembers
refused_search  why the FHIR server refuses a search
data_routes   whether a table's rows come from the mirror or from here
"""
