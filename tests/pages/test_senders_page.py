"""What senders may do and how they fare, and never what they prove themselves with."""

from __future__ import annotations

from typing import Any

import pytest

from integration.core.flow import count_refusal
from integration.fhir.grammar import RESOURCE_TYPES
from integration.senders.load import parse_senders
from integration.senders.schemes import collect_secrets
from tests.builders import MARKER, batch, bundle, entry, patient
from tests.conftest import Route
from tests.pages.asking import Visitor, count_flow, make_identification, make_parts

SECRET = "hidden-from-everybody-1"
SENDERS = """
[clinic.proof]
scheme = "bearer"
secrets = ["CLINIC_TOKEN"]
[clinic.rights]
methods = ["POST", "PUT"]
types = ["Patient"]
identifier_systems = ["https://clinic.example/mrn"]
id_prefixes = ["clinic-"]
[clinic.quota]
requests_per_minute = 600
[clinic.policy]
refused_entries = "hold"
[west.proof]
scheme = "hmac"
header = "X-Signature"
secrets = ["WEST_NEW", "WEST_OLD"]
[edge.proof]
scheme = "certificate"
header = "X-Forwarded-Client-Cert"
subjects = ["CN=edge"]
gateway_header = "X-Gateway-Token"
gateway_secrets = ["GATEWAY_TOKEN"]
[legacy.proof]
scheme = "function-key"
[dropbox.proof]
scheme = "folder"
"""
SETTINGS = {
    "CLINIC_TOKEN": SECRET,
    "WEST_NEW": "",
    "WEST_OLD": "@Microsoft.KeyVault(SecretUri=https://vault/x)",
    "GATEWAY_TOKEN": f"{SECRET}-of-the-gateway",
}


def visit(route: Route, **changes: Any) -> Visitor:
    """Somebody who reads, where these senders are listed."""
    senders = parse_senders(SENDERS, RESOURCE_TYPES)
    secrets = collect_secrets(senders.values(), SETTINGS.get, easy_auth=False)
    status = {"senders": senders, "sender_problems": secrets.problems, **changes}
    identification = make_identification(route, senders=senders, secrets=secrets)
    return Visitor(make_parts(route, identification=identification, status=status), ("reader",))


async def test_the_list_says_who_cannot_send_and_why(route: Route) -> None:
    page = await visit(route).get("senders")
    assert page.status == 200
    assert "west cannot send" in page.text
    assert "the setting WEST_NEW is not set" in page.text
    for name in ("clinic", "west", "edge", "legacy", "dropbox"):
        assert f"/api/pages/senders/{name}" in page.links
    assert "clinic none lately no entries none bearer set" in page.text


@pytest.mark.parametrize("path", ["senders", "senders/clinic", "senders/edge", "senders/west"])
async def test_no_page_shows_a_secret(route: Route, path: str) -> None:
    page = await visit(route).get(path)
    assert page.status == 200
    assert SECRET not in page.html
    assert "SecretUri" not in page.html


async def test_a_sender_is_shown_with_its_tables(route: Route) -> None:
    page = await visit(route).get("senders/clinic")
    for text in (
        "https://relay.example/api/senders/clinic/fhir",
        "scheme bearer",
        "Setting CLINIC_TOKEN is set",
        "methods POST, PUT",
        "types Patient",
        "reads no",
        "identifier_systems https://clinic.example/mrn",
        "id_prefixes clinic-",
        "requests_per_minute 600",
        "bytes_per_minute any number",
        "refused_entries hold",
        "write_order as the setting says",
    ):
        assert text in page.text, text
    assert "/api/pages/deliveries?sender=clinic" in page.links
    assert "/api/pages/deliveries?sender=clinic&attention=entries" in page.links


async def test_each_setting_says_whether_it_is_set(route: Route) -> None:
    page = await visit(route).get("senders/west")
    assert "Setting WEST_NEW is not set" in page.text
    assert "Setting WEST_OLD refers to a key vault that could not be read" in page.text
    assert "Setting GATEWAY_TOKEN is set" in (await visit(route).get("senders/edge")).text


@pytest.mark.parametrize(
    ("name", "place"),
    [("legacy", "https://relay.example/api/fhir"), ("dropbox", "the folder dropbox/ of the inbox")],
)
async def test_a_sender_without_an_address_of_its_own_says_where_it_sends(
    route: Route, name: str, place: str
) -> None:
    page = await visit(route).get(f"senders/{name}")
    assert place in page.text
    assert "needs no setting with a secret" in page.text


async def test_the_last_delivery_and_the_refused_share_are_shown(route: Route) -> None:
    count_flow(route)
    good, bad = patient(id="clinic-1"), patient(id="clinic-2")
    route.fhir_double.refuses.add("Observation")
    delivery = await route.deliver(
        batch(
            entry(good, method="PUT"),
            entry(bad, method="PUT"),
            entry({"resourceType": "Observation"}),
        ),
        sender="clinic",
    )
    await route.process_all(delivery)
    for path in ("senders", "senders/clinic"):
        page = await visit(route).get(path)
        assert f"/api/pages/deliveries/{delivery}" in page.links
        assert "1 of 3 (33.3 %)" in page.text
        assert MARKER not in page.html


async def test_a_sender_that_is_seen_and_not_listed_is_shown_as_that(route: Route) -> None:
    await route.deliver(bundle(entry(patient())), sender="former")
    visitor = visit(route)
    assert (await visitor.get("senders")).row("former")[4] == "not listed"
    page = await visitor.get("senders/former")
    assert page.status == 200
    assert "senders.toml does not list this sender" in page.text


async def test_refused_requests_are_counted_by_sender_and_for_nobody(route: Route) -> None:
    flow = count_flow(route)
    for sender, status in (("clinic", 401), ("clinic", 401), ("clinic", 429), (None, 401)):
        flow.count(sender, count_refusal(status))
    visitor = visit(route)
    page = await visitor.get("senders/clinic")
    assert "not proven 2 (401) , too many 1 (429)" in page.text
    assert "It is not let in: a request in the hour from" in page.text
    page = await visitor.get("senders")
    assert "nobody who is listed not proven 1 (401)" in page.text


async def test_a_sender_that_nobody_knows_is_a_404_with_a_sentence(route: Route) -> None:
    page = await visit(route).get("senders/nobody")
    assert page.status == 404
    assert "senders.toml lists no sender of this name" in page.text


async def test_an_app_without_senders_says_so(route: Route) -> None:
    page = await Visitor(make_parts(route), ("reader",)).get("senders")
    assert "This app has no senders.toml" in page.text
    assert "No sender is listed" in page.text
