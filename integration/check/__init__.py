"""VERB check: may this identity do at every neighbour what the app does there?

lines      a line of the table, and the table
mends      for each failure, the command or the page that mends it
verdicts   what an answer means
ends       the neighbours, with nothing asked of any yet
attempts   work becomes a line, whatever comes of it
storage    container, queues, tables
fhir       metadata, read, write, clock
rows       Dataverse: user, privileges, columns, keys
shown      Dataverse: virtual tables, data source, external events; the feed
command    `python -m integration check`

Nothing stays behind: what is written is deleted at once, or refused by a condition.
"""
