"""The relay: FHIR deliveries in over HTTP, resources to the FHIR server, patients to Dataverse.

`function_app.py` has the endpoints and triggers; each calls one verb. The folders, in the order in
which a delivery meets them:

intake          VERB accept: who sends, is it sound, keep its bytes, queue it, answer
relay           VERB process: plan the delivery, write each unit to FHIR, note every result
mirror          VERB mirror: the current state of one resource becomes its rows in Dataverse
virtual_tables  VERB answer: one OData request of Dataverse, from FHIR, reading and writing
change_events   changes that others make in FHIR, and changes that Dataverse hears of
pages           what people see of all that in a browser
reconcile       VERB reconcile: compare all resources with all rows, and mend what differs
operations      status, cancelling, replay, health, housekeeping
edits           a change of one resource that comes from Dataverse, in its place among deliveries
queues          what a message says, the queues' names, and when something is tried again
fhir, mapping, dataverse, odata, journal, senders   what verbs deal with: pure, but for clients
core            values, errors, HTTP, JSON, rate limits, log events, the activity log
pages           what people see in a browser
app             settings become parts; requests and results become HTTP; errors become replies
cli, provision, check   the commands of `python -m integration`

A module imports only from lines below its own:

    __main__
    cli
    check
    provision
    app
    pages
    reconcile
    intake | relay | mirror | virtual_tables | change_events | operations
    edits
    queues
    fhir | mapping | dataverse | odata | journal | senders
    core

tests/test_architecture.py holds that.
"""
