"""VERB provision: add to Dataverse what the relay needs there. Nothing is changed back or removed.

model           what the relay needs, and the steps to get there
virtual_tables  the virtual table of an entity map
load            all that the settings require
definitions     tables, columns, keys and relationships in the form of the Web API
records         steps for publisher, solution, data source, external events, role and user
tables          steps for columns, keys and virtual tables
client          read what exists, and send the steps
command         `python -m integration provision`
"""
