"""Bundles from elsewhere, read in place from the folder that BUNDLES_DIR names.

What travels is held against the bundle itself, without the relay's own rules: every entry is
written, or the FHIR server refuses it however it is sent; every reference between entries leads
to a resource that exists; every patient is shown by one contact.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.route import Route, locations
from tests.real_bundles import list_files, list_groups, read_body

pytestmark = [pytest.mark.live, pytest.mark.azurite]

GENDERS = {"male": 1, "female": 2, "other": 935000000, "unknown": 935000001}

# Issue codes of what intake refuses; the text must say why.
NAMED = {"invalid", "structure", "required", "value", "not-supported", "duplicate", "too-long"}


def _refers(path: Path) -> bool:
    """Whether it refers to what other bundles bring, by a condition."""
    return b"?identifier=" in read_body(path)


def _serves(path: Path) -> bool:
    """Whether other bundles may refer to what it brings."""
    return b'"ifNoneExist"' in read_body(path) and not _refers(path)


def _sent(path: Path) -> list[dict[str, Any]]:
    """What the file holds, as entries."""
    body = read_body(path)
    if path.name.endswith(".ndjson"):
        return [{"resource": json.loads(line)} for line in body.splitlines() if line.strip()]
    resource = json.loads(body)
    if resource["resourceType"] == "Bundle":
        if resource["type"] == "document":  # kept whole, as DOCUMENTS says where nothing is set
            return [{"resource": resource}]
        entries: list[dict[str, Any]] = resource["entry"]
        return entries
    return [{"resource": resource}]


def _is_data(entry: dict[str, Any]) -> bool:
    """Neither a read or a delete nor what a search or a notification says of itself."""
    request = entry.get("request") or {}
    if request.get("url", "").endswith("$status") or "resource" not in entry:
        return False
    if request.get("method") in ("DELETE", "PATCH"):
        return False
    outcome = (entry.get("search") or {}).get("mode") == "outcome"
    return not (outcome or entry["resource"]["resourceType"] == "OperationOutcome")


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            yield node["reference"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


@pytest.fixture(scope="module")
def delivered() -> set[Path]:
    """The files that a case has delivered."""
    return set()


@pytest.mark.parametrize("group", list_groups())
async def test_every_real_bundle_travels_the_route(
    route: Route, group: str, delivered: set[Path]
) -> None:
    """What others refer to by a condition has to be there first, wherever it is from."""
    counted: Counter[str] = Counter()
    paths = sorted(list_files(group), key=_refers)
    if any(map(_refers, paths)):
        for path in list_files():
            if path not in delivered and path not in paths and _serves(path):
                answer = await route.send(read_body(path))
                if answer.status_code == 202:
                    await route.arrive(answer)
                    delivered.add(path)
    for path in paths:
        delivered.add(path)
        kind = "application/fhir+ndjson" if path.name.endswith(".ndjson") else None
        headers = {"content_type": kind} if kind else {}
        answer = await route.send(read_body(path), **headers)
        if answer.status_code == 200:
            counted["notifications without resources"] += 1
            assert b'"notification-event"' not in read_body(path) or b'"focus"' not in read_body(
                path
            )
            continue
        if answer.status_code != 202:
            counted["files refused at intake"] += 1
            _is_explained(path, answer)
            continue
        counted["files carried"] += 1
        entries = await route.arrive(answer)
        sent = _sent(path)
        assert len(entries) == len(sent), path.name
        refused = [i for i, item in enumerate(entries) if int(item["response"]["status"]) >= 300]
        if refused:
            await _is_refused_anyway(route, path, {i: entries[i] for i in refused})
        written = [i for i in range(len(sent)) if i not in refused]
        places = locations(entries)
        counted["entries written"] += len(written)
        counted["entries that the FHIR server refuses"] += len(refused)
        kept = [i for i in written if _is_data(sent[i])]
        stored = await route.read_all(places[i] for i in kept)
        assert stored.keys() == {places[i] for i in kept}, path.name
        pairs = [(sent[i]["resource"], stored[places[i]]) for i in kept]
        counted["references"] += await _lead_somewhere(
            route, path, pairs, refused=[sent[i] for i in refused]
        )
        for patient in stored.values():
            if patient["resourceType"] == "Patient":
                counted["patients"] += 1
                await _is_shown(route, path, patient)
    print(dict(counted))  # noqa: T201 -- shown with -s, and when something failed
    assert counted["entries written"] > 0 or not counted["files carried"]


def _is_explained(path: Path, answer: httpx.Response) -> None:
    assert 400 <= answer.status_code < 500, (path.name, answer.status_code)
    for issue in answer.json()["issue"]:
        assert issue["code"] in NAMED, (path.name, issue)
        assert len(issue["diagnostics"]) > 15, (path.name, issue)


async def _is_refused_anyway(route: Route, path: Path, refused: dict[int, dict[str, Any]]) -> None:
    """The same bytes, unsplit and straight to the FHIR server: that refuses them too."""
    for item in refused.values():
        assert item["response"]["outcome"]["issue"], (path.name, item)
    body = read_body(path)
    whole = {} if path.name.endswith(".ndjson") else json.loads(body)
    if whole.get("type") not in ("batch", "transaction"):
        await _are_refused_alone(route, path, set(refused))
        return
    plain = await route.http.post(route.running.fhir_url, content=body, headers=route.own)
    if plain.status_code == 200:  # a batch: entry by entry
        plainly = [int(e["response"]["status"][:3]) for e in plain.json()["entry"]]
        assert sum(status >= 400 for status in plainly) >= len(refused), path.name
    else:
        assert 400 <= plain.status_code < 500, (path.name, plain.status_code, plain.text)


async def _are_refused_alone(route: Route, path: Path, refused: set[int]) -> None:
    """What is no request to a FHIR server is compared resource by resource; a placeholder that
    names nothing in the bundle needs no server to be refused."""
    sent = _sent(path)
    urls = {str(item.get("fullUrl")).lower() for item in sent}
    for position in refused:
        if "resource" not in sent[position]:
            continue  # named by a notification, from a server that nothing is fetched from
        resource = sent[position]["resource"]
        urns = {r.lower() for r in _references(resource) if r.startswith("urn:")}
        if urns - urls:
            continue
        url = f"{route.running.fhir_url}/{resource['resourceType']}"
        method = "PUT" if "id" in resource else "POST"
        url = f"{url}/{resource['id']}" if method == "PUT" else url
        plain = await route.http.request(method, url, json=resource, headers=route.own)
        assert plain.status_code >= 400, (path.name, position, plain.status_code)


async def _lead_somewhere(
    route: Route,
    path: Path,
    pairs: list[tuple[dict[str, Any], dict[str, Any]]],
    refused: list[dict[str, Any]],
) -> int:
    """Only what the sender itself aimed outside the bundle may lead nowhere, or at an entry that
    was refused: HAPI's server takes no id that is a number. It stores references without their
    versions: see docs/fhir-servers.md."""
    followed: list[str] = []
    for sent, stored in pairs:
        given = {_drop_version(reference) for reference in _references(sent)}
        found = map(_drop_version, _references(stored))
        followed += (r for r in found if not r.startswith("#") and r not in given)
    assert not [r for r in followed if r.startswith("urn:")], (path.name, "a stored placeholder")
    resources = [item["resource"] for item in refused if "resource" in item]
    missing = {f"{each['resourceType']}/{each.get('id')}" for each in resources}
    targets = {*followed} - missing
    assert (await route.read_all(targets)).keys() == targets, (path.name, "leads nowhere")
    return len(followed)


def _drop_version(reference: str) -> str:
    return reference.partition("/_history/")[0]


async def _is_shown(route: Route, path: Path, patient: dict[str, Any]) -> None:
    version = patient["meta"]["versionId"]
    async with asyncio.timeout(30):
        contact = await route.contact(patient["id"], version)
    names = [name for name in patient.get("name", []) if name.get("family")]
    if names:
        pairs = {(n["family"].strip()[:50], (n.get("given") or [None])[0]) for n in names}
        assert (contact["lastname"], contact["firstname"]) in pairs, path.name
    birth = patient.get("birthDate", "")
    assert contact["birthdate"] == (birth if len(birth) == 10 else None), path.name
    assert contact["gendercode"] == GENDERS.get(patient.get("gender", "")), path.name
