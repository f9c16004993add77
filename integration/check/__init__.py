"""VERB check: can the app's identity reach and use every service as the app will?

report          the result of one check, and the table of all
results         what a response says about the service
remedies        for each failure, the command or the page that helps
connections     the clients of the services
runner          run one check, whatever happens
storage         container, queues, tables, clock
senders         senders.toml, and the settings with secrets
fhir            metadata, read, write, clock; the servers of senders
dataverse       user, privileges, columns, keys, clock
virtual_tables  virtual tables, data source, external events; the feed
command         `python -m integration check`

Nothing is left behind: what a check writes is deleted at once, or refused by a condition.
"""
