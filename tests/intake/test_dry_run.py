"""A dry run returns what would be sent, as JSON and on a terminal, and sends nothing."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.cli.main import main
from integration.core.errors import Rejected
from integration.fhir.units import Limits
from integration.intake.dry_run import plan_delivery
from integration.intake.http_request import IncomingRequest
from integration.senders.model import make_unlisted_sender
from tests.conftest import Route
from tests.journeys.route import bundle, clinic, connected, entry, observation, patient


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Any]:
    def write(name: str, body: Any) -> str:
        path = tmp_path / name
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


def test_a_plan_shows_lanes_units_and_sizes(
    written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", written("whole.json", connected("Whole", 3))]) == 0

    first, unit = capsys.readouterr().out.splitlines()
    assert first == "transaction: entries=3 lanes=1 units=1"
    assert "transaction of 3 entries" in unit
    assert "3 created" in unit


def test_a_plan_shows_what_would_be_lost(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = written("large.json.gz", connected("Large", 12))

    assert main(["plan", file, "--max-entries", "5"]) == 0
    assert "lost:" in capsys.readouterr().out
    assert main(["plan", file, "--max-entries", "5", "--over-limit", "reject"]) == 1
    assert "refused: Bundle.entry[0]" in capsys.readouterr().out


def test_a_plan_shows_what_would_be_refused(
    written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    dangling = bundle("batch", entry(patient("Fine")), entry(observation("urn:uuid:nowhere")))

    assert main(["plan", written("dangling.json", dangling)]) == 1
    assert "refused: Bundle.entry[1]" in capsys.readouterr().out
    assert main(["plan", written("broken.json", b"{")]) == 2
    assert capsys.readouterr().out.startswith("refused: broken.json: the body is")


def test_lines_are_planned_as_ndjson(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "\n".join(json.dumps(patient(f"P{n}", id=f"p{n}")) for n in range(3)).encode()

    assert main(["plan", written("patients.ndjson", lines)]) == 0
    assert capsys.readouterr().out.startswith("ndjson: entries=3")


@pytest.mark.skipif(sys.platform == "win32", reason="the text comes from the system")
def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.json"

    assert main(["plan", str(missing)]) == 2
    assert capsys.readouterr().out == f"{missing}: No such file or directory\n"


def test_no_name_of_a_patient_is_shown(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", written("named.json", connected("Zzyzx", 3))])
    assert "Zzyzx" not in capsys.readouterr().out


def test_settings_apply_and_no_upstream_is_needed(
    written: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FHIR_URL", raising=False)
    header = {"resourceType": "MessageHeader", "eventUri": "urn:e", "source": {"endpoint": "urn:s"}}
    file = written("message.json", bundle("message", {"resource": header}))
    assert main(["plan", file]) == 0
    capsys.readouterr()

    monkeypatch.setenv("MESSAGES", "refuse")
    assert main(["plan", file]) == 2
    assert "MESSAGES" in capsys.readouterr().out
    monkeypatch.setenv("MESSAGES", "burn")
    assert main(["plan", file]) == 2
    assert capsys.readouterr().out.startswith("correct MESSAGES")
    monkeypatch.delenv("MESSAGES")
    monkeypatch.setenv("UNIT_MAX_ENTRIES", "5")
    assert main(["plan", written("large.json", connected("Large", 12))]) == 0
    assert "lost: atomicity" in capsys.readouterr().out


# --- dry run -----------------------------------------------------------------------------------


async def plan_request(route: Route, body: Any, **asked: Any) -> dict[str, Any]:
    headers = {"content-type": "application/fhir+json", **asked.pop("headers", {})}
    ask = IncomingRequest(
        **{"method": "POST", "type": None, "id": None, **asked},
        headers=headers,
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
    )
    found = await plan_delivery(route.intake, route.limits, ask)
    assert route.queue_sender.sent == []
    return found


def entries_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for lane in plan["lanes"] for unit in lane["units"] for entry in unit["entries"]]


@pytest.mark.parametrize(
    "asked", [{}, {"headers": {"idempotency-key": "k1"}}, {"sender": make_unlisted_sender("north")}]
)
async def test_the_ids_of_a_dry_run_are_those_of_the_delivery(
    route: Route, asked: dict[str, Any]
) -> None:
    body = connected("Ids", 4)
    plan = await plan_request(route, body, **asked)
    assert (route.journal.deliveries, route.journal.keys, route.journal.payloads) == ({}, {}, {})

    await route.process(await route.deliver(body, **asked))

    planned = {item["request"]["url"] for item in entries_of(plan)}
    assert planned == set(route.fhir_double.stored)
    assert all(item["created"] for item in entries_of(plan))


async def test_a_dry_run_shows_how_an_entry_is_conditional_and_what_waits_for_it(
    route: Route,
) -> None:
    organization, condition = clinic("7")
    who = "urn:uuid:33333333-3333-4333-8333-333333333333"
    plan = await plan_request(
        route,
        bundle(
            "batch",
            entry(patient("Waits", managingOrganization={"reference": who})),
            entry(organization, who, **condition),
            entry(organization, **condition),
        ),
    )
    (lane,) = plan["lanes"]
    (first,), (second,) = (unit["entries"] for unit in lane["units"])
    assert first["request"] == {"method": "POST", "url": "Organization", **condition}
    assert (first["position"], first["answersFor"]) == (1, [2])
    assert (second["position"], second["waitsFor"]) == (0, [1])
    assert (plan["kind"], plan["entries"], plan["lost"], plan["refused"]) == ("batch", 3, [], [])


async def test_a_dry_run_shows_what_is_refused_and_what_is_blocked_by_it(route: Route) -> None:
    who = "urn:uuid:33333333-3333-4333-8333-333333333333"
    organization, condition = clinic("7")
    broken = organization | {"partOf": {"reference": "urn:uuid:nowhere"}}
    plan = await plan_request(
        route,
        bundle(
            "batch",
            entry(broken, who, **condition),
            entry(patient("Waits", managingOrganization={"reference": who})),
        ),
    )
    (refused,) = plan["refused"]
    assert (refused["position"], refused["where"]) == (0, "Bundle.entry[0]")
    assert (refused["severity"], refused["code"]) == ("error", "not-found")
    assert [item["blocked"] for item in entries_of(plan)] == [True]


async def test_a_dry_run_shows_what_is_refused_unplanned_and_what_is_noted(
    route: Route,
) -> None:
    inner = {"resourceType": "Bundle", "type": "batch"}
    plan = await plan_request(route, bundle("batch", {}, entry(inner)))
    assert [item["where"] for item in plan["refused"]] == ["Bundle.entry[0]"]
    (shown,) = entries_of(plan)
    assert [note["severity"] for note in shown["notes"]] == ["warning"]


async def test_a_dry_run_shows_what_is_lost(route: Route) -> None:
    route.limits = Limits(entries=5)
    (lost,) = (await plan_request(route, connected("Large", 12)))["lost"]
    assert lost.startswith("atomicity")
    found = bundle("searchset", {"resource": patient("P", id="p1")})
    found["link"] = [{"relation": "next", "url": "http://elsewhere/2"}]
    (lost,) = (await plan_request(route, found))["lost"]
    assert lost.startswith("pages")


async def test_a_dry_run_accepts_what_the_endpoint_accepts(route: Route) -> None:
    lines = b'{"resourceType":"Patient","id":"p1"}\n{\n'
    plan = await plan_request(route, lines, headers={"content-type": "application/fhir+ndjson"})
    assert [item["request"]["url"] for item in entries_of(plan)] == ["Patient/p1"]
    assert [item["where"] for item in plan["refused"]] == ["line 2"]
    gone = await plan_request(route, b"", method="DELETE", type="Patient", id="p1")
    assert entries_of(gone)[0]["request"] == {"method": "DELETE", "url": "Patient/p1"}
    with pytest.raises(Rejected) as caught:
        await plan_request(route, b"{")
    assert caught.value.status == 400


async def test_a_dry_run_shows_that_a_delivery_is_a_repeat(route: Route) -> None:
    body, headers = connected("Again", 2), {"idempotency-key": "k1"}
    assert "repeats" not in await plan_request(route, body, headers=headers)
    first = await route.deliver(body, headers=headers)
    assert (await plan_request(route, body, headers=headers))["repeats"] == first
    with pytest.raises(Rejected) as caught:
        await plan_request(route, connected("Other", 2), headers=headers)
    assert caught.value.status == 422


def test_the_terminal_and_the_endpoint_show_the_same(
    written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", written("whole.json", connected("Same", 3)), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [item["position"] for item in entries_of(plan)] == [0, 1, 2]
