"""The relay: FHIR deliveries in over HTTP, resources to the FHIR server, patients to Dataverse.

The route of a delivery, each step a module:

intake      checks it (asking), keeps its exact bytes, queues a claim check, answers 202
subscriptions  tells of missed events; answers notifications that bring nothing
fetch       gets what a delivery names without bringing it, where that is allowed
relay       plans it, writes each unit to the FHIR server (lane), notes every outcome;
            before a unit goes, it takes its turn among deliveries (order) and looks (before)
mirror      brings the rows of a written Patient in Dataverse up to date with FHIR, through
            the Web API (web_api), or through the healthcare APIs (healthcare_api)
events      queues the mirroring of what others have changed at the FHIR server
external_events  tells Dataverse that what a virtual table shows has changed
virtual_tables   answers Dataverse's OData requests from FHIR, reading and writing
routes      knows which tables are mirrored, and which are virtual
reconcile   finds rows that are missing or behind, and has them brought
provision   sets Dataverse up: columns, virtual tables, the data source, events, role and user
check       tells whether every neighbour is there, and open to the app's identity
tracking    tells a sender what became of it, and cancels it
health      tells an operator whether every neighbour answers
preview     tells what would be sent, without sending
activity    notes what was said to every neighbour, and what came of it
housekeeping  queues what was lost on its way, and forgets what is over

`function_app.py` has the doors, `wiring` builds the parts (from `storage` and `neighbours`; what
knows the paths of maps at its `first_use`), `replies` turns results and errors into HTTP. A module
imports only from lines below its own:

    __main__
    cli
    check
    provision
    app | reconcile
    change_events | intake | mirror | operations | relay | virtual_tables
    queues
    dataverse | fhir | journal | mapping | odata
    core
"""
