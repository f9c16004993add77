"""The rows of Dataverse's own table as those of the feed: what answers on the route `dataverse`.

table    which columns of the physical table show each property of the feed
filter   a condition as a $filter of the Web API
query    a query as requests to the Web API
rows     a row of the Web API as the values of an entity, and back
source   reads pages of rows
write    creates, changes and deletes rows
"""
