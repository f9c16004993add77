"""Fault injection: break every service on the route, then check what became of each entry.

chapters     the scenarios, which run concurrently
deliveries   builds deliveries and states the intent of each entry; kinds has one of every kind
route        the running services, and a sender that retries until it is accepted
kills        kills the host at each request that it sends
weather      makes FHIR and Dataverse throttle, fail, hang up and answer nonsense; proxy: storage
conditions   clocks that differ, and reads that lag
copies       posts queue messages twice, out of order and concurrently
chains       queues the work of one delivery more than once; sweeping: by housekeeping
replays      changes limits under way, and breaks replays off
time_outs    lets invocations run into functionTimeout
injected     names the kinds of faults, each of which is counted
outage       hours without a FHIR server, in simulated time
truth        reads what the FHIR server and Dataverse hold in the end
verdict      compares that with the intent of each entry

attention    reads the list of what needs attention; attention_rows what Dataverse lacks;
             attention_verdict compares them

What is refused, held, parked or waits has a chapter of its own: refusal_chapter, with refusals and
refusal_rows.

The mirror has a chapter of its own, since it is not sent entries but hears of changes:
mirror_chapter, with its mirror_people, mirror_troubles, mirror_truth and mirror_verdict.
"""
