"""VERB provision: Dataverse gets what the relay needs of it. It adds, and undoes nothing.

model      what is wanted, and the steps towards it
shown      the virtual table of an entity map
wanted     all that the settings ask for
shapes     tables, columns, keys and relationships as the Web API takes them
rows       publisher, solution, data source, events, role and user: what is lacking of them
tables     columns and virtual tables: what is lacking of them
client     asks for what is there, and sends the steps
command    `python -m integration provision`
"""
