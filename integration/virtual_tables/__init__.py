"""VERB answer: one OData request from FHIR, reading and writing. Nothing is copied.

shape      what an entity map is in the feed: its type, and a resource as its row; pure
pushdown   what of a $filter FHIR can search for; pure
row_keys   which row shows a resource, and the way back
pages      what a search finds, in pieces that a worker can hold
marks      where the next page goes on; pure
read       entities, collections, counts
write      creating, changing, deleting
answer     which of these an address and a method ask for
"""
