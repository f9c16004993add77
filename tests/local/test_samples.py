"""The samples are valid FHIR R4, what their README says, and nobody's real data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.core import decimal_json
from integration.core.model import DeliveryRequest
from integration.fhir import bundle
from integration.fhir.identity import Naming
from integration.fhir.plan import plan
from integration.fhir.validation import find_issues
from local.processes import PROJECT
from local.samples import (
    FOLDER,
    LARGE_ENTRIES,
    build_large_transaction,
    build_transaction,
    load_samples,
)
from local.services import find_free_ports, run_services

NAMES = ["transaction.json", "batch-put.json", "patient.json", "patients.ndjson", "large"]
LINK = re.compile(rb'"reference":"([^"]+)"|href=\\"([^"\\]+)')


def resources(name: str) -> list[dict[str, Any]]:
    if name == "large":
        return [entry["resource"] for entry in build_large_transaction(LARGE_ENTRIES)["entry"]]
    body = (FOLDER / name).read_bytes()
    if name.endswith(".ndjson"):
        return [decimal_json.decode(line) for line in body.splitlines()]
    whole = decimal_json.decode(body)
    return [entry["resource"] for entry in whole.get("entry", [{"resource": whole}])]


def known_names(whole: dict[str, Any]) -> set[str]:
    names = {entry["fullUrl"] for entry in whole["entry"]}
    kept = (entry["resource"] for entry in whole["entry"] if "id" in entry["resource"])
    return names | {f"{resource['resourceType']}/{resource['id']}" for resource in kept}


def links(value: Any) -> set[str]:
    found = LINK.findall(decimal_json.encode(value))
    return {(reference or href).decode() for reference, href in found}


@pytest.fixture(scope="module")
def fhir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not (PROJECT / "local/node_modules/@medplum").is_dir():
        pytest.skip("@medplum not installed: npm ci --prefix local")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FHIR_URL", raising=False)
        folder = tmp_path_factory.mktemp("fhir")
        with run_services(find_free_ports(), folder, parts=["fhir"]) as running:
            yield running.fhir_url


@pytest.mark.parametrize("name", NAMES)
def test_every_resource_is_valid_by_the_models(name: str) -> None:
    found = [issue for resource in resources(name) for issue in find_issues(resource, name)]
    assert found == []


@pytest.mark.parametrize("name", NAMES)
def test_every_resource_is_valid_by_the_fhir_server(name: str, fhir: str) -> None:
    """Each alone, so that its validity counts and not its neighbours'."""
    all_ = resources(name)
    for start in range(0, len(all_), 400):
        entries = [
            {"resource": item, "request": {"method": "POST", "url": item["resourceType"]}}
            for item in all_[start : start + 400]
        ]
        answer = post(fhir, {"resourceType": "Bundle", "type": "batch", "entry": entries})
        assert [entry["response"]["status"] for entry in answer["entry"]] == ["201"] * len(entries)


@pytest.mark.parametrize("name", ["transaction.json", "batch-put.json"])
def test_a_bundle_is_valid_by_the_fhir_server(name: str, fhir: str) -> None:
    answer = post(fhir, decimal_json.decode((FOLDER / name).read_bytes()))
    # 200: what ifNoneExist names may be there already.
    assert {entry["response"]["status"] for entry in answer["entry"]} <= {"200", "201"}


def post(fhir: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/fhir+json"}
    answer = httpx.post(fhir, content=decimal_json.encode(body), headers=headers, trust_env=False)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("name", NAMES)
def test_every_patient_is_marked_as_test_data(name: str) -> None:
    patients = [item for item in resources(name) if item["resourceType"] == "Patient"]
    labels = [label["code"] for item in patients for label in item["meta"]["security"]]
    assert labels == ["HTEST"] * len(patients)
    assert patients


def test_every_sample_is_listed_and_described() -> None:
    files = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert {sample.name for sample in load_samples()} == files | {"large transaction"}
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert [name for name in files if f"`{name}`" not in readme] == []
    assert [sample.path for sample in load_samples() if sample.path not in readme] == []


def test_the_transaction_shows_what_its_readme_says() -> None:
    body = (FOLDER / "transaction.json").read_bytes()
    whole = decimal_json.decode(body)
    assert links(whole) <= known_names(whole)
    assert [
        entry["request"]["url"] for entry in whole["entry"] if "ifNoneExist" in entry["request"]
    ] == ["Organization"]
    assert re.search(rb'"value": 1\.10\b', body)
    assert re.search(rb'<a href=\\"urn:uuid:', body)


def test_the_batch_refers_by_relative_references() -> None:
    whole = decimal_json.decode((FOLDER / "batch-put.json").read_bytes())
    assert all(link.startswith(("Patient/", "Encounter/")) for link in links(whole))
    assert links(whole) <= known_names(whole)


@pytest.mark.parametrize("sizes", [[1], [2, 3], [4, 5], [13, 27, 1], [600, 200]])
def test_a_made_transaction_has_parts_of_these_sizes(sizes: list[int]) -> None:
    whole = build_transaction(sizes)
    assert len(whole["entry"]) == sum(sizes)
    assert links(whole) <= known_names(whole)
    kinds = Counter(entry["resource"]["resourceType"] for entry in whole["entry"])
    assert kinds["Patient"] == len(sizes)


def test_the_large_transaction_is_split_with_one_part_over_the_limit() -> None:
    body = decimal_json.encode(build_large_transaction(LARGE_ENTRIES))
    planned = plan(bundle.read(body, DeliveryRequest("POST")), Naming("sender", "key"))
    assert planned.split
    sizes = [[len(unit.entries) for unit in lane.units] for lane in planned.lanes]
    assert sizes == [[500, 100], [200]]


def test_the_same_arguments_make_the_same_transaction() -> None:
    assert build_transaction([20, 20]) == build_transaction([20, 20])
    assert build_transaction([20], seed="a") != build_transaction([20], seed="b")


@pytest.mark.parametrize("size", [1200, 4000])
def test_an_entry_has_the_size_that_was_asked_for(size: int) -> None:
    whole = build_transaction([50], entry_bytes=size)
    sizes = [len(decimal_json.encode(entry)) for entry in whole["entry"]]
    assert max(sizes) <= size
    assert min(sizes) > size - 20


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in Path(FOLDER).iterdir()) < 60_000
