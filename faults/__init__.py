"""Proof of what is promised: faults on the whole route, and what became of every entry.

chapters     its parts, side by side
deliveries   what is sent, and what it asks for; kinds has one of every kind
route        the parts that run, and a sender who does not give up
kills        the host killed at each request that leaves it
weather      neighbours that throttle, fail, hang up and answer nonsense; proxy does it to storage
copies       queue messages that come twice, out of order and side by side
outage       hours without a FHIR server, in simulated time
truth        what the FHIR server and Dataverse hold in the end, read from them
verdict      what that says of each entry
"""
