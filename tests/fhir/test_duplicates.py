"""Entries of one bundle that name the same resource: which are refused, and which stand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.core.model import DeliveryRequest, Policy
from integration.fhir import bundle
from integration.fhir.entries import Contents
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from tests.fhir.bundles import make_urn

NAMING = Naming("clinic", "key-1")
URL = "https://ehr.example/fhir/Group/g"


def group(name: str, version: str | None = None, id_: str = "g") -> dict[str, Any]:
    meta = {"meta": {"versionId": version}} if version else {}
    return {"resourceType": "Group", "id": id_, **meta, "name": name}


def member(resource: dict[str, Any], full_url: str | None = None) -> dict[str, Any]:
    return {"resource": resource} | ({"fullUrl": full_url} if full_url else {})


def asked(method: str, resource: dict[str, Any], full_url: str | None = None) -> dict[str, Any]:
    url = "Group" if method == "POST" else f"Group/{resource['id']}"
    return {**member(resource, full_url), "request": {"method": method, "url": url}}


def read(kind: str, *entries: dict[str, Any]) -> Contents:
    shape = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
    received = DeliveryRequest("POST", policy=Policy(documents="resources"))
    return bundle.read(json.dumps(shape).encode(), received)


def list_names(made: Plan) -> list[list[str]]:
    """What is written, unit after unit."""
    (lane,) = made.lanes
    return [
        [json.loads(bytes(entry.body))["resource"]["name"] for entry in unit.entries]
        for unit in lane.units
    ]


KINDS = ["collection", "searchset"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("url", [URL, None])
def test_the_very_same_twice_is_written_once_and_answers_for_both(
    kind: str, url: str | None
) -> None:
    made = plan(read(kind, member(group("a"), url), member(group("a"), url)), NAMING)
    assert (list_names(made), made.refused) == ([["a"]], ())
    assert made.lanes[0].positions == [0, 1]


def test_digits_make_a_difference() -> None:
    texts = ('"quantity": 1.10', '"quantity": 1.1')
    entries = ",".join(
        f'{{"resource": {{"resourceType": "Group", "id": "g", {text}}}}}' for text in texts
    )
    body = f'{{"resourceType": "Bundle", "type": "collection", "entry": [{entries}]}}'
    (lane,) = plan(bundle.read(body.encode(), DeliveryRequest("POST")), NAMING).lanes
    assert [len(unit.entries) for unit in lane.units] == [1, 1]


def test_a_new_resource_twice_under_one_placeholder_is_made_once() -> None:
    twice = [asked("POST", group("a", id_="x"), make_urn(1)) for _ in range(2)]
    made = plan(read("batch", *twice), NAMING)
    assert (list_names(made), made.refused) == ([["a"]], ())


def test_without_a_full_url_a_create_that_comes_twice_makes_two() -> None:
    made = plan(read("batch", asked("POST", group("a")), asked("POST", group("a"))), NAMING)
    assert list_names(made) == [["a", "a"]]


def test_a_patch_that_comes_twice_is_applied_twice() -> None:
    document = {"resourceType": "Parameters", "parameter": [{"name": "operation"}]}
    patch = {"resource": document, "request": {"method": "PATCH", "url": "Group/g"}}
    (lane,) = plan(read("batch", patch, patch), NAMING).lanes
    assert [len(unit.entries) for unit in lane.units] == [1, 1]


def test_a_state_that_returns_is_written_again() -> None:
    contents = read("batch", *(asked("PUT", group(name)) for name in "aba"))
    assert list_names(plan(contents, NAMING)) == [["a"], ["b"], ["a"]]


@pytest.mark.parametrize(
    ("numbers", "written"),
    [("12", "12"), ("21", "12"), ("132", "123"), ("xy", "xy"), (["9", "10"], ["9", "10"])],
)
def test_versions_of_one_full_url_are_written_the_oldest_first(
    numbers: list[str] | str, written: list[str] | str
) -> None:
    entries = [member(group(f"v{number}", number), URL) for number in numbers]
    made = plan(read("collection", *entries), NAMING)
    assert made.refused == ()
    assert list_names(made) == [[f"v{number}"] for number in written]


@pytest.mark.parametrize("kind", [*KINDS, "batch"])
@pytest.mark.parametrize("other", [group("b"), group("b", "1"), group("a", "2", id_="h")])
def test_another_entry_of_the_same_full_url_is_refused_alone(
    kind: str, other: dict[str, Any]
) -> None:
    both = [group("a"), other]
    entries = [asked("PUT", one, URL) if kind == "batch" else member(one, URL) for one in both]
    first, second = read(kind, *entries).entries
    assert first.refusal is None
    assert second.refusal is not None
    assert (second.refusal.code, second.refusal.expression) == (
        "duplicate",
        "Bundle.entry[1].fullUrl",
    )


@pytest.mark.parametrize("kind", [*KINDS, "batch"])
def test_of_two_updates_of_a_resource_the_last_stands_and_the_first_says_so(kind: str) -> None:
    make = asked if kind == "batch" else lambda _, resource: member(resource)
    made = plan(read(kind, make("PUT", group("full")), make("PUT", group("stub"))), NAMING)
    assert list_names(made) == [["full"], ["stub"]]
    first, last = (entry for unit in made.lanes[0].units for entry in unit.entries)
    (note,) = first.notes
    assert (note.severity, note.code, note.expression) == (
        "warning",
        "duplicate",
        "Bundle.entry[0]",
    )
    assert "Bundle.entry[1]" in note.text
    assert last.notes == ()


def test_lines_are_treated_as_entries_are() -> None:
    lines = [json.dumps(group(name)).encode() for name in "aab"]
    contents = bundle.read(b"\n".join(lines), DeliveryRequest("POST", format="ndjson"))
    made = plan(contents, NAMING)
    assert list_names(made) == [["a"], ["b"]]
    assert "line 3" in made.lanes[0].units[0].entries[0].notes[0].text


def test_a_link_to_a_full_url_that_two_resources_share_is_refused_with_both() -> None:
    shared = [member(group("a"), "urn:uuid:"), member(group("b", id_="h"), "urn:uuid:")]
    seen = member({"resourceType": "Observation", "focus": [{"reference": "urn:uuid:"}]})
    made = plan(read("collection", *shared, seen), NAMING)
    issue = {entry.position: issue for entry, issue in made.refused}[2]
    assert issue.code == "multiple-matches"
    assert "Bundle.entry[0]" in issue.text
    assert "Bundle.entry[1]" in issue.text
