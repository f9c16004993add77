"""What do links of an entry become: conditional references, placeholders that name nothing?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from integration.fhir import units
from integration.fhir.conditions import canonicalize_condition
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Limits, UnitEntry
from tests.fhir.bundles import make_urn, read_contents
from tests.fhir.unit_bodies import body

NAMING = Naming("clinic", "key-1")
MRN = "urn:oid:1.2.36.146.595.217.0.1"


def entry(
    resource: dict[str, Any], number: int | None = None, method: str = "POST", **request: Any
) -> dict[str, Any]:
    url = request.pop("url", resource["resourceType"])
    shape = {"resource": resource, "request": {"method": method, "url": url, **request}}
    return shape if number is None else {**shape, "fullUrl": make_urn(number)}


def observation(reference: str) -> dict[str, Any]:
    return entry({"resourceType": "Observation", "subject": {"reference": reference}})


def patient(
    *identifiers: dict[str, str], number: int | None = None, **requested: Any
) -> dict[str, Any]:
    return entry({"resourceType": "Patient", "identifier": list(identifiers)}, number, **requested)


def plan_bundle(
    *entries: dict[str, Any], kind: str = "transaction", dangling: str = "refuse"
) -> Plan:
    contents = read_contents({"resourceType": "Bundle", "type": kind, "entry": list(entries)})
    return plan(replace(contents, dangling=dangling), NAMING)


def map_sent(found: Plan) -> dict[int, UnitEntry]:
    every = (e for lane in found.lanes for unit in lane.units for e in unit.entries)
    return {item.position: item for item in every}


def get_subject(item: UnitEntry) -> str:
    return str(body(item)["resource"]["subject"]["reference"])


def map_units(found: Plan) -> dict[int, int]:
    (lane,) = found.lanes
    return {e.position: n for n, unit in enumerate(lane.units) for e in unit.entries}


# -- conditional references -----------------------------------------------------------------------

SAME = [
    ("identifier=a|1", "identifier=a|1"),
    ("identifier=a|1", "identifier=a%7C1"),
    ("identifier=a%7c1", "identifier=a|1"),
    ("birthdate=1984&name=x", "name=x&birthdate=1984"),
    ("name=a%20b", "name=a+b"),
]


@pytest.mark.parametrize(("condition", "query"), SAME)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_the_search_of_a_conditional_entry_means_that_entry(
    method: str, condition: str, query: str
) -> None:
    requested = (
        {"ifNoneExist": condition}
        if method == "POST"
        else {"method": "PUT", "url": f"Patient?{condition}"}
    )
    found = map_sent(plan_bundle(observation(f"Patient?{query}"), patient(**requested)))
    assert get_subject(found[0]) == found[1].target
    assert found[0].awaits == (found[1].target,)
    assert found[0].sole == ()


@pytest.mark.parametrize(
    "query", ["identifier=a|2", "identifier=b|1", "name=a", "identifier=a|1&x=y"]
)
def test_another_search_does_not_mean_it(query: str) -> None:
    found = map_sent(
        plan_bundle(observation(f"Patient?{query}"), patient(ifNoneExist="identifier=a|1"))
    )
    assert get_subject(found[0]) == f"Patient?{query}"


def test_the_search_of_another_type_does_not_mean_it() -> None:
    found = map_sent(plan_bundle(observation("Group?name=x"), patient(ifNoneExist="name=x")))
    assert get_subject(found[0]) == "Group?name=x"


ONE = {"system": MRN, "value": "1"}
TOKENS = [
    (f"identifier={MRN}|1", True),
    (f"identifier={MRN}%7C1", True),
    ("identifier=urn%3Aoid%3A1.2.36.146.595.217.0.1%7C1", True),
    ("identifier=1", True),
    ("identifier=|1", False),
    ("identifier=a|1", False),
    ("identifier=2", False),
    (f"identifier={MRN}|", False),
    (f"identifier={MRN}|1,{MRN}|2", False),
    (f"identifier={MRN}|1&active=true", False),
    (f"identifier:not={MRN}|1", False),
]


@pytest.mark.parametrize(("query", "matches"), TOKENS)
def test_an_identifier_means_the_one_entry_that_brings_it(query: str, matches: bool) -> None:
    reference = f"Patient?{query}"
    found = map_sent(plan_bundle(observation(reference), patient(ONE)))
    assert get_subject(found[0]) == (found[1].target if matches else reference)
    # The server may know another match, which would be an error: it is asked before.
    expected = (canonicalize_condition(reference), found[1].target)
    assert found[0].sole == ((expected,) if matches else ())


def test_a_value_without_a_system_is_an_identifier_too() -> None:
    found = map_sent(plan_bundle(observation("Patient?identifier=|1"), patient({"value": "1"})))
    assert get_subject(found[0]) == found[1].target


def test_an_identifier_that_two_entries_bring_is_refused() -> None:
    refused = plan_bundle(observation("Patient?identifier=1"), patient(ONE), patient(ONE)).refused
    codes = {item.position: issue.code for item, issue in refused}
    assert codes[0] == "multiple-matches"
    assert refused[0][1].expression == "Bundle.entry[0]"
    assert "1.2.36" not in refused[0][1].text


def test_two_writes_of_one_resource_are_one_match() -> None:
    twice = [patient(ONE, method="PUT", url="Patient/p") for _ in range(2)]
    found = map_sent(plan_bundle(observation("Patient?identifier=1"), *twice, kind="batch"))
    assert get_subject(found[0]) == "Patient/p"


def test_what_is_deleted_or_only_read_is_no_match() -> None:
    gone = {"request": {"method": "DELETE", "url": "Patient/p"}, "resource": {"identifier": [ONE]}}
    found = map_sent(plan_bundle(observation("Patient?identifier=1"), gone))
    assert get_subject(found[0]) == "Patient?identifier=1"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_in_a_batch_a_search_waits_for_what_it_may_find(order: tuple[int, int]) -> None:
    both = [observation("Patient?name=x"), patient()]
    units = map_units(plan_bundle(*(both[n] for n in order), kind="batch"))
    assert units[order.index(1)] < units[order.index(0)]


def test_in_a_transaction_the_server_resolves_it() -> None:
    units = map_units(plan_bundle(observation("Patient?name=x"), patient()))
    assert set(units.values()) == {0}


def test_a_search_for_what_the_delivery_does_not_write_waits_for_nothing() -> None:
    many = [observation("Patient?name=x") for _ in range(4)]
    contents = read_contents({"resourceType": "Bundle", "type": "batch", "entry": many})
    assert len(plan(contents, NAMING, Limits(entries=1)).lanes) == 4


def test_entries_that_search_for_each_other_go_in_the_senders_order() -> None:
    part_of = {"partOf": {"reference": "Organization?name=x"}}
    many = [entry({"resourceType": "Organization", **part_of}) for _ in range(3)]
    found = plan_bundle(*many, kind="batch")
    assert found.refused == ()
    assert map_units(found) == {0: 0, 1: 1, 2: 2}


def test_many_searches_go_into_few_units_and_cost_few_edges() -> None:
    many = [observation("Patient?name=x") for _ in range(3000)] + [patient() for _ in range(3000)]
    (lane,) = plan_bundle(*many, kind="batch").lanes
    assert [len(unit.entries) for unit in lane.units] == [500] * 12


def test_a_placeholder_inside_a_conditional_reference_follows_its_entry() -> None:
    report = entry(
        {
            "resourceType": "DiagnosticReport",
            "result": [{"reference": f"Observation?subject={make_urn(1)}"}],
        }
    )
    found = map_sent(plan_bundle(report, patient(number=1)))
    reference = body(found[0])["resource"]["result"][0]["reference"]
    assert reference == f"Observation?subject={found[1].target}"


def test_what_an_entry_needs_is_kept_with_its_lane() -> None:
    (lane,) = plan_bundle(
        observation("Patient?identifier=1"), patient(ONE), observation(make_urn(9)), dangling="note"
    ).lanes
    assert units.decode_lane(units.encode_lane(lane)) == lane


# -- local ids ------------------------------------------------------------------------------------


def local(id_: str, number: int | None = None, **requested: Any) -> dict[str, Any]:
    return entry({"resourceType": "Patient", "id": id_}, number, **requested)


@pytest.mark.parametrize("kind", ["transaction", "batch"])
@pytest.mark.parametrize("numbers", [(None, None), (1, 2), (None, 2)])
@pytest.mark.parametrize("reference", ["Patient/1", "Patient/1/_history/2", "Patient/1#a"])
def test_a_local_id_of_two_new_resources_is_refused_with_both(
    kind: str, numbers: tuple[int | None, int | None], reference: str
) -> None:
    both = [local("1", number) for number in numbers]
    found = plan_bundle(both[0], observation(reference), both[1], kind=kind)
    issue = {item.position: issue for item, issue in found.refused}[1]
    assert (issue.code, issue.expression) == ("multiple-matches", "Bundle.entry[1]")
    assert "Bundle.entry[0] or Bundle.entry[2]" in issue.text
    assert len(found.refused) == (3 if kind == "transaction" else 1)


def test_two_new_resources_of_one_local_id_are_made_where_nothing_refers_to_it() -> None:
    assert len(map_sent(plan_bundle(local("1"), local("1")))) == 2


def test_a_new_resource_and_an_update_of_one_id_are_told_apart_by_their_full_url() -> None:
    update = local("1", method="PUT", url="Patient/1")
    assert plan_bundle(update, local("1", 1), observation("Patient/1")).refused
    found = map_sent(plan_bundle(update, local("1", 1), observation(make_urn(1))))
    assert get_subject(found[2]) == found[1].target


@pytest.mark.parametrize("full_url", [None, "https://a.example/fhir/Patient/1"])
def test_what_is_deleted_is_never_meant_by_a_link(full_url: str | None) -> None:
    gone = {"request": {"method": "DELETE", "url": "Patient/1"}}
    if full_url:
        gone = {**gone, "fullUrl": full_url}
    found = map_sent(plan_bundle(gone, local("1"), observation("Patient/1")))
    assert get_subject(found[2]) == found[1].target


REFUSED = [
    {**local("1", 1), "request": {"method": "POST", "url": "Group"}},
    {**local("1", 1), "request": {"method": "POST", "url": "Patient", "ifMatch": 7}},
    {**local("1", 1), "request": {"method": "PUT", "url": "Patient?"}},
]


@pytest.mark.parametrize("dangling", ["refuse", "note"])
@pytest.mark.parametrize("refused", REFUSED)
def test_a_link_to_a_refused_new_resource_never_leads_to_another_one(
    refused: dict[str, Any], dangling: str
) -> None:
    found = plan_bundle(refused, observation("Patient/1"), kind="batch", dangling=dangling)
    assert found.lanes == ()
    assert "Bundle.entry[0]" in {item.position: issue for item, issue in found.refused}[1].text


def test_a_link_by_placeholder_to_a_refused_entry_names_it() -> None:
    found = plan_bundle(REFUSED[0], observation(make_urn(1)), kind="batch")
    issue = {item.position: issue for item, issue in found.refused}[1]
    assert (issue.code, "Bundle.entry[0]" in issue.text) == ("not-found", True)


def test_a_link_to_a_refused_update_stays_with_its_id() -> None:
    bad = local("1", method="PUT", url="Patient/1", ifMatch=7)
    found = map_sent(plan_bundle(bad, observation("Patient/1"), kind="batch"))
    assert get_subject(found[1]) == "Patient/1"


@pytest.mark.parametrize(
    "reference", ["Patient/1/_history/7", "https://a.example/Patient/1/_history/7"]
)
def test_a_version_of_a_resource_that_is_created_here_is_left_out_and_noted(
    reference: str,
) -> None:
    new = {**local("1"), "fullUrl": "https://a.example/Patient/1"}
    home = {**observation(reference), "fullUrl": "https://a.example/Observation/1"}
    found = map_sent(plan_bundle(new, home))
    assert get_subject(found[1]) == found[0].target
    (note,) = found[1].notes
    assert (note.severity, note.expression) == ("information", "Bundle.entry[1]")


def test_a_version_of_a_resource_that_is_updated_stays() -> None:
    update = local("1", method="PUT", url="Patient/1")
    found = map_sent(plan_bundle(update, observation("Patient/1/_history/7")))
    assert get_subject(found[1]) == "Patient/1/_history/7"


# -- conditions in several spellings --------------------------------------------------------------

SPELLINGS = [
    ("identifier=https://a.example|1", "identifier=https%3A%2F%2Fa.example%7C1"),
    ("identifier=a|1&active=true", "active=true&identifier=a|1"),
    ("birthdate=1984", "birthdate=eq1984"),
]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
@pytest.mark.parametrize("kind", ["transaction", "batch"])
def test_two_conditional_creates_of_one_condition_are_one_resource(
    kind: str, one: str, other: str
) -> None:
    entries = [patient(number=1, ifNoneExist=one), patient(number=2, ifNoneExist=other)]
    found = map_sent(plan_bundle(*entries, observation(make_urn(2)), kind=kind))
    assert found[0].positions == [0, 1]
    assert get_subject(found[2]) == found[0].target
    assert body(found[0])["request"]["ifNoneExist"] == one


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_in_a_transaction_the_last_conditional_update_of_a_condition_stands(
    one: str, other: str
) -> None:
    entries = [
        patient({"value": text}, number=n, method="PUT", url=f"Patient?{query}")
        for n, (text, query) in enumerate((("a", one), ("b", other)))
    ]
    found = map_sent(plan_bundle(*entries, observation(make_urn(0))))
    assert found[1].positions == [1, 0]
    assert get_subject(found[2]) == found[1].target
    assert body(found[1])["resource"]["identifier"] == [{"value": "b"}]
    (note,) = found[1].notes
    assert (note.severity, "Bundle.entry[0]" in note.text) == ("warning", True)


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_in_a_batch_they_are_made_one_after_the_other_and_share_a_lock(
    one: str, other: str
) -> None:
    entries = [patient(method="PUT", url=f"Patient?{query}") for query in (one, other)]
    planned = plan_bundle(*entries, kind="batch")
    assert map_units(planned) == {0: 0, 1: 1}
    assert len({item.condition for item in map_sent(planned).values()}) == 1


def test_a_conditional_update_stands_for_a_conditional_create_of_its_condition() -> None:
    create = patient(number=1, ifNoneExist="identifier=1")
    update = patient(number=2, method="PUT", url="Patient?identifier=1")
    found = map_sent(plan_bundle(create, update))
    assert found[1].positions == [1, 0]


# -- bundles inside -------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["transaction", "batch"])
def test_a_bundle_inside_that_asks_for_something_is_stored_and_says_so(type_: str) -> None:
    found = map_sent(plan_bundle(entry({"resourceType": "Bundle", "type": type_})))
    (note,) = found[0].notes
    assert (note.severity, note.expression) == ("warning", "Bundle.entry[0]")


def test_a_bundle_inside_that_only_holds_something_is_stored() -> None:
    found = map_sent(plan_bundle(entry({"resourceType": "Bundle", "type": "collection"})))
    assert found[0].notes == ()


# -- patches --------------------------------------------------------------------------------------


def test_a_link_inside_a_patch_follows_its_entry() -> None:
    value = {"name": "value", "valueReference": {"reference": make_urn(1)}}
    document = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [value]}]}
    patch = entry(document, method="PATCH", url="Observation/o")
    found = map_sent(plan_bundle(patch, patient(number=1)))
    part = body(found[0])["resource"]["parameter"][0]["part"][0]
    assert part["valueReference"]["reference"] == found[1].target
    assert (found[0].method, found[0].target, found[0].created) == ("PATCH", "Observation/o", False)


def test_nothing_can_refer_to_what_a_patch_finds_by_a_search() -> None:
    document = {"resourceType": "Parameters", "parameter": [{"name": "operation"}]}
    patch = entry(document, 1, "PATCH", url="Patient?name=x")
    assert plan_bundle(patch, observation(make_urn(1))).refused


# -- placeholders that name no entry --------------------------------------------------------------

WHO = {"resourceType": "Observation", "subject": {"reference": make_urn(9)}}
DANGLING = [
    entry(WHO),
    entry({"resourceType": "Patient"}, ifNoneExist=f"organization={make_urn(9)}"),
    entry(
        {"resourceType": "Patient"}, ifNoneExist=f"organization={make_urn(9).replace(':', '%3A')}"
    ),
    entry({"resourceType": "Patient"}, method="PUT", url=f"Patient?organization={make_urn(9)}"),
    observation(f"Patient?organization={make_urn(9)}"),
    {"request": {"method": "GET", "url": f"Observation?subject={make_urn(9)}"}},
    {"request": {"method": "DELETE", "url": f"Observation?subject={make_urn(9)}"}},
]


@pytest.mark.parametrize("bad", DANGLING)
def test_a_placeholder_that_names_no_entry_is_refused(bad: dict[str, Any]) -> None:
    found = plan_bundle(bad, kind="batch")
    assert found.lanes == ()
    ((_, issue),) = found.refused
    assert (issue.code, issue.expression) == ("not-found", "Bundle.entry[0]")


@pytest.mark.parametrize("bad", DANGLING)
def test_or_it_is_sent_as_it_came_and_never_in_silence(bad: dict[str, Any]) -> None:
    found = map_sent(plan_bundle(bad, kind="batch", dangling="note"))
    (note,) = found[0].notes
    assert (note.severity, note.code, note.expression) == (
        "warning",
        "not-found",
        "Bundle.entry[0]",
    )
    text = bytes(found[0].body).decode()
    assert make_urn(9) in text or make_urn(9).replace(":", "%3A") in text


NO_LINKS = [
    "identifier=urn:oid:1.2.3|4",
    "identifier=urn%3Aoid%3A1.2.3%7C4",
    f"identifier=urn:ietf:rfc:3986|{make_urn(9)}",
    f"identifier=urn:ietf:rfc:3986%7C{make_urn(9)}",
    "identifier=urn:oid:1.2.3",
    "organization.identifier=urn:oid:1.2.3",
    "organization:identifier=urn:oid:1.2.3",
    "_tag=urn:oid:1.2.3",
]


@pytest.mark.parametrize("query", NO_LINKS)
def test_a_urn_that_is_an_identifier_or_its_system_is_no_placeholder(query: str) -> None:
    found = map_sent(plan_bundle(patient(ifNoneExist=query)))
    assert body(found[0])["request"]["ifNoneExist"] == query
    assert found[0].notes == ()
