"""What must come before what, one by one; tests/fhir/test_plan.py has it for every delivery."""

from __future__ import annotations

from typing import Any

from integration.fhir.plan import plan
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Limits
from tests.fhir.bundles import read_contents

ONE = Limits(entries=1)


def put(identity: str) -> dict[str, Any]:
    kind = identity.partition("/")[0]
    return {"request": {"method": "PUT", "url": identity}, "resource": {"resourceType": kind}}


def make_request(method: str, url: str) -> dict[str, Any]:
    return {"request": {"method": method, "url": url}}


def lanes(*entries: dict[str, Any], kind: str = "batch") -> list[list[int]]:
    """The entries of each lane in the order in which they go, one in a unit."""
    contents = read_contents({"resourceType": "Bundle", "type": kind, "entry": list(entries)})
    return [lane.positions for lane in plan(contents, Naming("s", "k"), ONE).lanes]


def test_a_read_comes_after_the_last_write_of_what_it_names() -> None:
    read, history = make_request("GET", "Patient/1"), make_request("HEAD", "Patient/1/_history/2")
    (lane,) = lanes(read, put("Patient/1"), history, put("Patient/1"))
    assert lane[:2] == [1, 3]


def test_a_read_has_nothing_to_do_with_other_resources() -> None:
    assert lanes(make_request("GET", "Patient/1"), put("Patient/2"), put("Group/1")) == [
        [0],
        [1],
        [2],
    ]


def test_a_read_comes_after_a_condition_that_may_find_what_it_names() -> None:
    found = {**put("Patient/1"), "request": {"method": "PUT", "url": "Patient?name=x"}}
    other = {**put("Group/1"), "request": {"method": "PUT", "url": "Group?name=x"}}
    read, again = make_request("GET", "Patient/1"), make_request("GET", "Patient/2")
    assert lanes(read, again, found, other) == [[2, 0, 1], [3]]


def test_a_search_comes_after_all_writes() -> None:
    (lane,) = lanes(
        make_request("GET", "Group?_has:Patient:x=y"), put("Patient/1"), put("Encounter/1")
    )
    assert lane[-1] == 0


def test_reads_alone_go_side_by_side() -> None:
    assert lanes(*(make_request("GET", f"Patient?name={n}") for n in range(3))) == [[0], [1], [2]]


def test_of_a_large_transaction_the_reads_go_last() -> None:
    reads = [make_request("GET", "Patient/1"), make_request("GET", "Patient?name=x")]
    (lane,) = lanes(*reads, put("Patient/1"), put("Group/1"), kind="transaction")
    assert set(lane[:2]) == {2, 3}


def test_a_conditional_delete_goes_before_all_that_writes_its_type() -> None:
    delete, again = (
        make_request("DELETE", "Patient?name=x"),
        make_request("DELETE", "Patient?name=y"),
    )
    assert lanes(put("Patient/1"), put("Group/1"), delete, again) == [[2, 3, 0], [1]]


def test_many_that_find_cost_few_edges() -> None:
    finders = [
        make_request(method, f"Patient?name={n}")
        for n in range(2000)
        for method in ("GET", "DELETE")
    ]
    contents = read_contents(
        {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": finders + [put(f"Patient/{n}") for n in range(2000)],
        }
    )
    (lane,) = plan(contents, Naming("s", "k")).lanes
    assert [len(unit.entries) for unit in lane.units] == [500] * 12
