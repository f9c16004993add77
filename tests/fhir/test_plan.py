"""Which requests a delivery becomes, and in which order. First what holds for every delivery."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core import decimal_json
from integration.core.model import DeliveryRequest
from integration.fhir import bundle, units, write_mark
from integration.fhir.entries import MAX_ISSUES, Contents, Entry
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Lane, Limits, Unit, UnitEntry
from tests.fhir.bundles import bundles, deliveries, make_urn, read_contents, read_lines
from tests.fhir.unit_bodies import body
from tests.randomness import limit_examples

NAMING = Naming("clinic", "key-1")
SMALL = Limits(entries=5, bytes=3000)
LIMITS = st.sampled_from([Limits(), SMALL, Limits(entries=1), Limits(entries=3, bytes=1500)])
SENDERS = "0b6d3d3e-9c4b-4a53-8f1f"  # what every placeholder of the sender holds
ENVELOPE = 200  # bytes that the plan leaves for the bundle around the entries


def list_sent(planned: Plan) -> Iterator[tuple[int, int, Unit, UnitEntry]]:
    """(lane, unit, unit, entry) of everything that goes, in the order it goes."""
    for lane_number, lane in enumerate(planned.lanes):
        for unit_number, unit in enumerate(lane.units):
            for entry in unit.entries:
                yield lane_number, unit_number, unit, entry


def map_places(planned: Plan) -> dict[int, tuple[int, int]]:
    """(lane, unit) of each entry."""
    return {entry.position: (lane, unit) for lane, unit, _, entry in list_sent(planned)}


def find_edges(contents: Contents) -> dict[int, set[int]]:
    """Which entries each entry refers to, found without the code under test."""
    named: defaultdict[str, list[int]] = defaultdict(list)
    for item in contents.entries:
        for name in {item.full_url, item.identity} - {None}:
            named[str(name)].append(item.position)
    return {
        item.position: {
            named[link["reference"]][0]
            for link in (item.resource or {}).get("refers", [])
            if len(named[link["reference"]]) == 1
        }
        for item in contents.entries
        if not item.refusal
    }


def reach(graph: dict[int, set[int]], start: int) -> set[int]:
    seen, left = set[int](), [start]
    while left:
        fresh = graph.get(left.pop(), set()) - seen
        seen |= fresh
        left.extend(fresh)
    return seen


def add_order(contents: Contents, planned: Plan) -> dict[int, set[int]]:
    """The edges, and those from each entry to the one before it of the same resource."""
    graph = {n: set(targets) for n, targets in find_edges(contents).items()}
    last: dict[str, int] = {}
    for entry in sorted((entry for *_, entry in list_sent(planned)), key=lambda e: e.position):
        if entry.target in last:
            graph[entry.position].add(last[entry.target])
        last[entry.target] = entry.position
    return graph


def find_order(contents: Contents) -> dict[int, set[int]]:
    """Which writes must be done before an entry that finds its resource by itself: a read, or a
    conditional delete or patch; before all else, what a conditional delete finds; and any delete
    before what else finds."""
    entries = [item for item in contents.entries if not item.refusal]
    writes = [item for item in entries if item.read_path is None]
    before: dict[int, set[int]] = {item.position: set() for item in entries}
    for item in entries:
        path = (item.read_path or "").split("/")
        for other in writes:
            alike = other.type == item.type
            named = other.id is not None and path[:2] == [other.type, other.id]
            if item.read_path is not None and (
                len(path) == 1 or named or (alike and other.is_conditional)
            ):
                before[item.position].add(other.position)
            patches = other.method == "PATCH" and other.is_conditional
            last = item.method == "PATCH" and item.is_conditional and not patches
            first = other.method == "DELETE" and other.is_conditional
            gone = other.method == "DELETE" and item.is_conditional
            if (
                item.read_path is None
                and alike
                and not (item.method == "DELETE" and item.is_conditional)
            ):
                before[item.position] |= {other.position} if last or first or gone else set()
    return {n: targets - {n} for n, targets in before.items()}


def add_found(contents: Contents) -> dict[int, set[int]]:
    """The edges, and what must come before what finds."""
    before = find_order(contents)
    return {n: targets | before[n] for n, targets in find_edges(contents).items()}


def find_parts(graph: dict[int, set[int]]) -> list[set[int]]:
    """The groups that share no edge."""
    both = {n: targets | {m for m in graph if n in graph[m]} for n, targets in graph.items()}
    groups = {frozenset(reach(both, n) | {n}) for n in graph}
    return [set(group) for group in groups]


# -- for every delivery ---------------------------------------------------------------------------


@limit_examples(60)
@given(deliveries(), LIMITS)
def test_every_entry_is_planned_once_or_refused(contents: Contents, limits: Limits) -> None:
    planned = plan(contents, NAMING, limits)
    found = [entry.position for *_, entry in list_sent(planned)]
    found += [entry.position for entry, _ in planned.refused]
    assert sorted(found) == list(range(len(contents.entries)))


@limit_examples(60)
@given(deliveries(), LIMITS)
def test_no_unit_is_above_the_limits(contents: Contents, limits: Limits) -> None:
    for lane in plan(contents, NAMING, limits).lanes:
        for unit in lane.units:
            same = {name: name for entry in unit.entries for name in entry.awaits}
            request = units.build_request(unit, unit.entries, same)
            assert 0 < len(unit.entries) <= limits.entries
            assert len(request.body or b"") <= limits.bytes


@limit_examples(40)
@given(deliveries(), LIMITS)
def test_the_same_contents_are_planned_the_same_again(contents: Contents, limits: Limits) -> None:
    first, second = plan(contents, NAMING, limits), plan(contents, NAMING, limits)
    assert [units.encode_lane(lane) for lane in first.lanes] == [
        units.encode_lane(lane) for lane in second.lanes
    ]
    assert (first.refused, first.split) == (second.refused, second.split)


@limit_examples(60)
@given(deliveries(), LIMITS)
def test_no_resource_is_in_a_unit_twice_nor_in_two_lanes(
    contents: Contents, limits: Limits
) -> None:
    lanes: defaultdict[str, set[int]] = defaultdict(set)
    for number, lane in enumerate(plan(contents, NAMING, limits).lanes):
        for unit in lane.units:
            targets = [entry.target for entry in unit.entries]
            assert len(targets) == len(set(targets))
            for target in targets:
                lanes[target].add(number)
    assert all(len(numbers) == 1 for numbers in lanes.values())


@limit_examples(60)
@given(deliveries(), LIMITS)
def test_a_resource_that_is_written_again_keeps_its_order(
    contents: Contents, limits: Limits
) -> None:
    seen: dict[str, int] = {}
    for *_, entry in list_sent(plan(contents, NAMING, limits)):
        assert seen.get(entry.target, -1) < entry.position
        seen[entry.target] = entry.position


@limit_examples(60)
@given(deliveries(), LIMITS)
def test_what_is_referred_to_goes_before_what_refers_to_it(
    contents: Contents, limits: Limits
) -> None:
    planned = plan(contents, NAMING, limits)
    graph, place = add_order(contents, planned), map_places(planned)
    deletes = {entry.position for *_, entry in list_sent(planned) if entry.method == "DELETE"}
    for n in place:
        for target in graph[n] & place.keys() - deletes:
            if n not in reach(graph, target):
                assert place[target][0] == place[n][0]
                assert place[target][1] <= place[n][1]


@limit_examples(100)
@given(st.one_of(*map(deliveries, ("batch", "transaction"))), LIMITS)
def test_what_finds_its_resource_by_itself_finds_what_one_server_would_let_it_find(
    contents: Contents, limits: Limits
) -> None:
    # Inside a unit the server keeps this order by itself: deletes first, patches late, reads last.
    planned = plan(contents, NAMING, limits)
    place, before, graph = map_places(planned), find_order(contents), add_order(contents, planned)
    for n in place:
        for earlier in before[n] & place.keys():
            assert place[earlier][0] == place[n][0]
            # What refers to a conditional create, and is written before it is deleted, is a circle.
            if n not in reach(graph, earlier):
                assert place[earlier][1] <= place[n][1]


@limit_examples(60)
@given(st.one_of(*map(deliveries, ("batch", "transaction"))), LIMITS)
def test_a_read_is_no_write_of_any_resource(contents: Contents, limits: Limits) -> None:
    for *_, entry in list_sent(plan(contents, NAMING, limits)):
        requested = contents.entries[entry.position]
        assert entry.is_read is (requested.read_path is not None)
        if entry.is_read:
            assert (entry.created, entry.source_version, entry.target[:9]) == (
                False,
                None,
                "urn:uuid:",
            )
            assert body(entry) == {
                "request": {"method": requested.method, "url": address(requested)}
            }


def address(entry: Entry) -> str:
    return f"{entry.read_path}?{entry.query}" if entry.query else str(entry.read_path)


@limit_examples(60)
@given(st.one_of(*map(deliveries, ("batch", "ndjson", "collection"))), LIMITS)
def test_inside_a_batch_too_what_is_referred_to_goes_first(
    contents: Contents, limits: Limits
) -> None:
    # The server takes requests of one method in their order; methods have an order of their own.
    planned = plan(contents, NAMING, limits)
    graph = add_order(contents, planned)
    for lane in planned.lanes:
        flat = [entry for unit in lane.units for entry in unit.entries]
        order = {entry.position: number for number, entry in enumerate(flat)}
        method = {entry.position: body(entry)["request"]["method"] for entry in flat}
        for n in order:
            for target in graph[n] & order.keys():
                if method[target] == method[n] and n not in reach(graph, target):
                    assert order[target] < order[n]


@limit_examples(60)
@given(deliveries(), LIMITS)
def test_in_a_unit_deletes_go_first(contents: Contents, limits: Limits) -> None:
    for lane in plan(contents, NAMING, limits).lanes:
        for unit in lane.units:
            deletes = [entry.method == "DELETE" for entry in unit.entries]
            assert deletes == sorted(deletes, reverse=True)


@limit_examples(60)
@given(deliveries(), LIMITS)
def test_what_awaits_an_answer_goes_after_it(contents: Contents, limits: Limits) -> None:
    planned = plan(contents, NAMING, limits)
    home = {entry.target: (lane, unit) for lane, unit, _, entry in list_sent(planned)}
    waits = {entry.target: set(entry.awaits) for *_, entry in list_sent(planned)}

    def circle(name: str) -> bool:
        """Whether two answers wait for each other: no order could serve both."""
        seen, left = set[str](), [name]
        while left:
            fresh = waits.get(left.pop(), set()) - seen
            seen |= fresh
            left.extend(fresh)
        return name in seen

    for lane, number, unit, entry in list_sent(planned):
        for name in set(entry.awaits) & home.keys():
            if not circle(name):
                assert home[name][0] == lane
                # Inside a transaction the server itself follows the placeholder.
                assert home[name][1] < number + (unit.kind == "transaction")


@limit_examples(60)
@given(deliveries(), LIMITS)
def test_every_reference_to_an_entry_says_its_target(contents: Contents, limits: Limits) -> None:
    planned = plan(contents, NAMING, limits)
    target = {entry.position: entry.target for *_, entry in list_sent(planned)}
    by_url = {item.full_url: item.position for item in contents.entries}
    for *_, entry in list_sent(planned):
        stated = body(entry).get("resource", {}).get("refers", [])
        requested = (contents.entries[entry.position].resource or {}).get("refers", [])
        for new, old in zip(stated, requested, strict=True):
            resolved = by_url.get(old["reference"])
            if resolved in target:
                assert new["reference"] == target[resolved]


@limit_examples(60)
@given(deliveries(), LIMITS)
def test_no_placeholder_of_the_sender_goes_out(contents: Contents, limits: Limits) -> None:
    for *_, entry in list_sent(plan(contents, NAMING, limits)):
        assert SENDERS not in bytes(entry.body).decode()


@limit_examples(40)
@given(bundles())
def test_two_deliveries_with_the_same_placeholders_share_no_new_id(bundle: dict[str, Any]) -> None:
    def created(key: str) -> set[str]:
        planned = plan(read_contents(bundle), Naming("clinic", key))
        return {
            entry.target
            for *_, entry in list_sent(planned)
            if "/" not in entry.target or entry.created
        }

    assert created("key-1").isdisjoint(created("key-2"))
    assert created("key-1") == created("key-1")


@limit_examples(40)
@given(deliveries(), LIMITS)
def test_a_lane_survives_being_kept(contents: Contents, limits: Limits) -> None:
    for lane in plan(contents, NAMING, limits).lanes:
        assert units.decode_lane(units.encode_lane(lane)) == lane


@limit_examples(40)
@given(bundles(paddings=(0, 3000)))
def test_an_entry_above_the_limit_is_refused_alone_in_a_batch_and_with_all_in_a_transaction(
    bundle: dict[str, Any],
) -> None:
    planned = plan(read_contents(bundle), NAMING, SMALL)
    large = {n for n, item in enumerate(bundle["entry"]) if len(json.dumps(item)) > 3000}
    refused = {entry.position: issue for entry, issue in planned.refused}
    assert large == {n for n, issue in refused.items() if issue.code == "too-costly"}
    if large and bundle["type"] == "transaction":
        assert planned.lanes == ()
        assert refused.keys() == set(range(len(bundle["entry"])))
    for position in large:
        assert refused[position].code == "too-costly"
        assert refused[position].expression == f"Bundle.entry[{position}]"


# -- transactions ---------------------------------------------------------------------------------


@limit_examples(40)
@given(deliveries("transaction"))
def test_a_transaction_within_the_limits_stays_one(contents: Contents) -> None:
    planned = plan(contents, NAMING)
    ((unit,),) = [lane.units for lane in planned.lanes]
    assert unit.kind == "transaction"
    assert not planned.split
    inside = {entry.target for entry in unit.entries}
    assert all(inside.issuperset(entry.awaits) for entry in unit.entries)


@limit_examples(60)
@given(deliveries("transaction"), LIMITS)
def test_a_transaction_is_split_exactly_when_it_needs_more_than_one_unit(
    contents: Contents, limits: Limits
) -> None:
    planned = plan(contents, NAMING, limits)
    assert planned.split is (sum(len(lane.units) for lane in planned.lanes) > 1)


@limit_examples(60)
@given(deliveries("transaction"), LIMITS)
def test_a_part_of_a_transaction_that_fits_stays_whole(contents: Contents, limits: Limits) -> None:
    planned = plan(contents, NAMING, limits)
    place = map_places(planned)
    size = {entry.position: len(bytes(entry.body)) + 1 for *_, entry in list_sent(planned)}
    for part in find_parts(add_found(contents)) if planned.lanes else ():
        small = len(part) <= limits.entries
        if small and sum(size[n] for n in part) + ENVELOPE <= limits.bytes:
            assert len({place[n] for n in part}) == 1


@limit_examples(60)
@given(deliveries("transaction"), LIMITS)
def test_a_part_of_a_transaction_is_never_spread_over_lanes(
    contents: Contents, limits: Limits
) -> None:
    place = map_places(plan(contents, NAMING, limits))
    for part in find_parts(add_found(contents)) if place else ():
        assert len({place[n][0] for n in part}) == 1


@limit_examples(60)
@given(deliveries("transaction"), LIMITS)
def test_a_lane_of_a_transaction_deletes_before_it_writes(
    contents: Contents, limits: Limits
) -> None:
    for lane in plan(contents, NAMING, limits).lanes:
        deletes = [entry.method == "DELETE" for unit in lane.units for entry in unit.entries]
        assert deletes == sorted(deletes, reverse=True)
        assert {unit.kind for unit in lane.units} == {"transaction"}


@limit_examples(40)
@given(deliveries("transaction"), LIMITS)
def test_a_circle_that_fits_into_a_unit_is_not_torn(contents: Contents, limits: Limits) -> None:
    planned = plan(contents, NAMING, limits)
    graph, place = find_edges(contents), map_places(planned)
    size = {entry.position: len(bytes(entry.body)) + 1 for *_, entry in list_sent(planned)}
    for n in graph if place else ():
        component = {m for m in reach(graph, n) if n in reach(graph, m)} | {n}
        small = len(component) <= limits.entries
        if small and sum(size[m] for m in component) + ENVELOPE <= limits.bytes:
            assert len({place[m] for m in component}) == 1


@limit_examples(40)
@given(deliveries("transaction"), st.sampled_from([1, 3, 500]))
def test_an_over_limit_transaction_is_refused_where_splitting_is_not_wanted(
    contents: Contents, entries: int
) -> None:
    planned = plan(contents, NAMING, Limits(entries=entries, over="reject"))
    if len(contents.entries) <= entries:
        assert (len(planned.lanes), planned.refused) == (1, ())
    else:
        assert planned.lanes == ()
        assert [entry.position for entry, _ in planned.refused] == list(
            range(len(contents.entries))
        )
        assert planned.refused[0][1].code == "too-costly"
        assert not planned.split


# -- batches and NDJSON ---------------------------------------------------------------------------


@limit_examples(40)
@given(st.one_of(*map(deliveries, ("batch", "ndjson", "collection"))), LIMITS)
def test_what_is_no_transaction_never_becomes_one(contents: Contents, limits: Limits) -> None:
    planned = plan(contents, NAMING, limits)
    assert {unit.kind for lane in planned.lanes for unit in lane.units} <= {"batch"}
    assert not planned.split


# -- one by one -----------------------------------------------------------------------------------


def bundle_of(*entries: dict[str, Any], kind: str = "batch") -> Contents:
    return read_contents({"resourceType": "Bundle", "type": kind, "entry": list(entries)})


def create(number: int, *links: str, **request: Any) -> dict[str, Any]:
    refers = [{"reference": link} for link in links]
    resource = {"resourceType": "Patient", "refers": refers}
    requested = {"method": "POST", "url": "Patient", **request}
    return {"fullUrl": make_urn(number), "resource": resource, "request": requested}


def get_only(contents: Contents) -> dict[str, Any]:
    ((*_, entry),) = list_sent(plan(contents, NAMING))
    return body(entry)


def test_a_create_is_sent_as_an_update_with_an_id_of_ours() -> None:
    ((*_, entry),) = list_sent(plan(bundle_of(create(0)), NAMING))
    request, resource = body(entry)["request"], body(entry)["resource"]
    assert request == {"method": "PUT", "url": entry.target}
    assert f"Patient/{resource['id']}" == entry.target
    assert entry.created


def test_the_id_that_a_created_resource_came_with_is_replaced() -> None:
    theirs = create(0)
    theirs["resource"]["id"] = "theirs"
    assert get_only(bundle_of(theirs))["resource"]["id"] != "theirs"


def test_an_update_keeps_its_id_and_its_condition() -> None:
    request = {"method": "PUT", "url": "Patient/1", "ifMatch": 'W/"2"'}
    update = {"resource": {"resourceType": "Patient"}, "request": request}
    mark = {"url": write_mark.URL, "valueString": ""}  # filled when it is sent
    assert get_only(bundle_of(update)) == {
        "resource": {"resourceType": "Patient", "meta": {"extension": [mark]}, "id": "1"},
        "request": request,
    }


def test_a_delete_is_sent_without_a_resource() -> None:
    request = {"method": "DELETE", "url": "Patient/1"}
    assert get_only(bundle_of({"request": request})) == {"request": request}


def test_a_conditional_create_stays_one() -> None:
    found = get_only(bundle_of(create(0, ifNoneExist="identifier=1")))
    assert found["request"] == {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=1"}
    assert found["fullUrl"].startswith("urn:uuid:")
    assert "id" not in found["resource"]


def test_a_conditional_update_stays_one() -> None:
    found = get_only(bundle_of(create(0, method="PUT", url="Patient?identifier=1")))
    assert found["request"] == {"method": "PUT", "url": "Patient?identifier=1"}


def test_a_delete_of_one_resource_names_that_resource() -> None:
    for kind in ("batch", "transaction"):
        found = get_only(
            bundle_of({"request": {"method": "DELETE", "url": "Patient/1"}}, kind=kind)
        )
        assert found["request"]["url"] == "Patient/1"


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_link_to_no_entry_of_the_bundle_is_refused(kind: str) -> None:
    planned = plan(bundle_of(create(0), create(1, make_urn(9)), kind=kind), NAMING)
    issues = {entry.position: issue for entry, issue in planned.refused}
    assert issues[1].code == "not-found"
    assert issues[1].expression == "Bundle.entry[1]"
    assert (0 in issues) is (kind == "transaction")


def test_one_refused_entry_refuses_its_whole_transaction_and_says_so() -> None:
    bad = bundle_of(*[create(n) for n in range(30)], create(30, make_urn(99)), kind="transaction")
    planned = plan(bad, NAMING)
    assert planned.lanes == ()
    codes = [issue.code for _, issue in planned.refused]
    assert codes == ["processing"] * 30 + ["not-found"]


def test_the_reasons_of_a_refused_transaction_are_bounded() -> None:
    bad = bundle_of(*[create(n, make_urn(999)) for n in range(50)], kind="transaction")
    codes = [issue.code for _, issue in plan(bad, NAMING).refused]
    assert codes.count("not-found") == MAX_ISSUES
    assert len(codes) == 50


CONDITIONAL = create(0, ifNoneExist="identifier=1")
PHOTO = {**create(1), "resource": {"resourceType": "Patient", "photo": [{"url": make_urn(0)}]}}


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("entries", [(CONDITIONAL, PHOTO), (PHOTO, CONDITIONAL)])
def test_an_address_of_a_conditional_entry_is_sent_once_its_id_is_known(
    entries: tuple[Any, Any], kind: str
) -> None:
    planned = plan(bundle_of(*entries, create(2), kind=kind), NAMING)
    (lane,) = planned.lanes
    units = {entry.where: n for n, unit in enumerate(lane.units) for entry in unit.entries}
    first, second = (f"Bundle.entry[{entries.index(one)}]" for one in (CONDITIONAL, PHOTO))
    assert units[first] < units[second]
    sent = {entry.where: entry for unit in lane.units for entry in unit.entries}
    assert json.loads(bytes(sent[second].body))["resource"]["photo"] == [
        {"url": sent[first].target}
    ]
    assert sent[second].awaits == (sent[first].target,)
    assert planned.split is (kind == "transaction")


def test_a_transaction_that_must_not_be_split_is_refused_by_the_address_that_needs_it() -> None:
    contents = bundle_of(CONDITIONAL, PHOTO, kind="transaction")
    planned = plan(contents, NAMING, Limits(over="reject"))
    assert planned.lanes == ()
    assert {entry.position: issue.code for entry, issue in planned.refused}[1] == "not-supported"


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(
    ("condition", "place"),
    [
        ({"ifNoneExist": f"link={make_urn(0)}"}, "request.ifNoneExist"),
        ({"method": "PUT", "url": f"Patient?link={make_urn(0)}"}, "request.url"),
    ],
)
def test_a_condition_on_a_conditional_entry_waits_in_a_batch_and_is_named_in_a_transaction(
    condition: dict[str, Any], place: str, kind: str
) -> None:
    planned = plan(bundle_of(CONDITIONAL, create(1, **condition), kind=kind), NAMING)
    if kind == "batch":
        (lane,) = planned.lanes
        assert [[entry.position for entry in unit.entries] for unit in lane.units] == [[0], [1]]
    else:
        issue = {entry.position: issue for entry, issue in planned.refused}[1]
        assert (issue.code, issue.expression) == ("not-supported", f"Bundle.entry[1].{place}")
        assert "Bundle.entry[0]" in issue.text


@pytest.mark.parametrize(
    "condition",
    [
        {"ifNoneExist": f"subject={make_urn(0)}"},
        {"method": "PUT", "url": f"Patient?subject={make_urn(0)}"},
    ],
)
def test_a_placeholder_in_a_condition_follows_its_entry(condition: dict[str, Any]) -> None:
    planned = plan(bundle_of(create(0), create(1, **condition)), NAMING)
    assert planned.refused == ()
    target = {entry.position: entry.target for *_, entry in list_sent(planned)}
    bodies = {entry.position: bytes(entry.body).decode() for *_, entry in list_sent(planned)}
    assert SENDERS not in bodies[1]
    assert f"subject={target[0]}" in bodies[1]


def test_a_batch_sends_a_conditional_entry_before_what_it_refers_to_in_a_circle() -> None:
    # The first awaits the answer to the second; the second knows the address of the first.
    both = bundle_of(create(0, make_urn(1)), create(1, make_urn(0), ifNoneExist="identifier=1"))
    (lane,) = plan(both, NAMING).lanes
    assert [[entry.position for entry in unit.entries] for unit in lane.units] == [[1], [0]]


def test_two_entries_that_await_each_other_are_refused_with_that_reason() -> None:
    both = bundle_of(
        create(0, make_urn(1), ifNoneExist="identifier=1"),
        create(1, make_urn(0), ifNoneExist="identifier=2"),
    )
    planned = plan(both, NAMING)
    assert planned.lanes == ()
    assert len(planned.refused) == 2


def test_a_transaction_resolves_entries_that_await_each_other_while_one_unit_holds_them() -> None:
    both = bundle_of(
        create(0, make_urn(1), ifNoneExist="identifier=1"),
        create(1, make_urn(0), ifNoneExist="identifier=2"),
        create(2),
        kind="transaction",
    )
    assert plan(both, NAMING, Limits(entries=2)).refused == ()
    planned = plan(both, NAMING, Limits(entries=1))
    assert planned.lanes == ()
    assert len(planned.refused) == 3


def test_a_circle_too_large_for_a_unit_is_cut_so_that_answers_come_in_time() -> None:
    # The first awaits the answer to the last; the others only refer to the one before.
    circle = [create(0, make_urn(3)), create(1, make_urn(0)), create(2, make_urn(1))]
    contents = bundle_of(
        *circle, create(3, make_urn(2), ifNoneExist="identifier=1"), kind="transaction"
    )
    (lane,) = plan(contents, NAMING, Limits(entries=2)).lanes
    unit_of = {e.position: n for n, unit in enumerate(lane.units) for e in unit.entries}
    assert len(lane.units) == 2
    assert unit_of[3] <= unit_of[0]


def test_a_transaction_of_exactly_the_limit_is_not_split() -> None:
    contents = bundle_of(create(0), kind="transaction")
    ((*_, entry),) = list_sent(plan(contents, NAMING))
    size = len(bytes(entry.body))
    for spare in range(ENVELOPE - 2, ENVELOPE + 3):
        planned = plan(contents, NAMING, Limits(bytes=size + spare))
        assert not planned.split
        assert len(planned.lanes) + len(planned.refused) == 1


@pytest.mark.parametrize("digits", ["1.10", "0.00", "100.000", "1.0", "12345678901234567.890"])
def test_a_decimal_keeps_its_digits_from_the_request_to_the_server(digits: str) -> None:
    line = f'{{"resourceType":"Observation","valueQuantity":{{"value":{digits}}}}}'
    ((*_, unit, entry),) = list_sent(plan(read_lines(line.encode()), NAMING))
    request = units.build_request(unit, [entry], {})
    assert f'"value":{digits}}}'.encode() in (request.body or b"")


def test_a_delivery_of_one_resource_is_a_batch_of_one() -> None:
    contents = read_contents({"resourceType": "Patient", "id": "1"})
    (lane,) = plan(contents, NAMING).lanes
    assert lane == Lane(lane.units)
    assert [(unit.kind, len(unit.entries)) for unit in lane.units] == [("batch", 1)]


def test_bad_lines_are_refused_and_the_others_go() -> None:
    good = b'{"resourceType":"Patient","id":"1"}'
    planned = plan(read_lines(good + b"\nno JSON"), NAMING)
    assert [entry.position for *_, entry in list_sent(planned)] == [0]
    assert [entry.where for entry, _ in planned.refused] == ["line 2"]


def test_a_large_batch_goes_side_by_side() -> None:
    planned = plan(bundle_of(*[create(n) for n in range(12)]), NAMING, SMALL)
    assert len(planned.lanes) == 3
    assert [len(lane.positions) for lane in planned.lanes] == [5, 5, 2]


def test_the_same_conditional_create_twice_is_one_resource() -> None:
    twice = [
        {
            "fullUrl": f"urn:uuid:0000000{n}-0000-4000-8000-000000000000",
            "resource": {"resourceType": "Organization", "name": f"Clinic {n}"},
            "request": {"method": "POST", "url": "Organization", "ifNoneExist": "identifier=a|1"},
        }
        for n in (1, 2)
    ]
    refers = {
        "resource": {
            "resourceType": "Patient",
            "managingOrganization": {"reference": twice[1]["fullUrl"]},
        },
        "request": {"method": "POST", "url": "Patient"},
    }
    body = decimal_json.encode(
        {"resourceType": "Bundle", "type": "transaction", "entry": [*twice, refers]}
    )
    made = plan(bundle.read(body, DeliveryRequest("POST")), Naming("s", "k"))

    ((unit,),) = (lane.units for lane in made.lanes)
    clinic, patient = sorted(unit.entries, key=lambda entry: entry.position)
    assert clinic.positions == [0, 1]
    assert decimal_json.decode(bytes(patient.body))["resource"]["managingOrganization"] == {
        "reference": clinic.target
    }
    assert made.lanes[0].positions.count(1) == 1
