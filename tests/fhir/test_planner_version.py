"""A version of the planner is one way to plan: what another version has planned is planned anew."""

from __future__ import annotations

import hashlib

from integration.fhir import units
from integration.fhir.plan import PLANNER, plan
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Limits
from tests.builders import Body, batch, bundle, entry, observation, patient
from tests.fhir.bundles import make_urn, read_contents

VERSION = 3
DIGEST = "28c815edfb1aa28e"


def deliveries() -> list[Body]:
    """One of each way to be planned."""
    url, other = make_urn(1), make_urn(2)
    known = {"ifNoneExist": "identifier=urn:mrn|7"}
    family = [entry(patient(), url), entry(observation(url), other)]
    updates = [
        entry(patient(id="p1", active=active), method="PUT", url="Patient/p1")
        for active in (True, False)
    ]
    reads = [entry(method="GET", url="Patient/p1"), entry(method="DELETE", url="Patient/p2")]
    return [
        bundle(*family),
        bundle(*family, *(entry(patient(), make_urn(n)) for n in range(3, 9))),
        batch(entry(patient(), url, **known), entry(observation(url))),
        batch(*updates, *reads),
        batch(entry(observation("Patient?identifier=urn:mrn|7")), entry(patient(), **known)),
        bundle({"resource": patient(id="p1")}, {"resource": patient(id="p2")}, kind="collection"),
    ]


def test_whoever_plans_otherwise_raises_the_version_of_the_planner() -> None:
    """If this fails, raise PLANNER, and set VERSION and DIGEST to what is found here."""
    digest = hashlib.sha256()
    for body in deliveries():
        made = plan(read_contents(body), Naming("clinic", "key-1"), Limits(entries=3))
        for lane in made.lanes:
            digest.update(units.encode_lane(lane))
    assert (PLANNER, digest.hexdigest()[:16]) == (VERSION, DIGEST)
