"""Cut up, carried in any order and interrupted anywhere, a delivery does what it would do whole."""

from __future__ import annotations

import asyncio

from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from integration.fhir.plan import Plan
from integration.fhir.units import Limits
from tests.model import uncut
from tests.model.carrying import carried, carried_together, mixing, planned
from tests.model.deliveries import Sent, sent, two_sent
from tests.model.same import picture
from tests.model.server import Server
from tests.model.uncut import Asked, End
from tests.model.world import Script, World
from tests.randomness import limit_examples

SCRIPTS = st.one_of(st.binary(max_size=20), st.binary(min_size=40, max_size=120))
BEFORE = {f"before {number}" for number in range(3)}
SEEDS = st.integers(0, 7)
_SUPERSEDED = 409
NIGHTLY = 10_000  # examples of each test: some half an hour of one core


@limit_examples(150, nightly=NIGHTLY)
@given(sent(), SCRIPTS, SEEDS)
def test_what_is_cut_up_comes_out_as_if_it_were_whole(it: Sent, script: bytes, seed: int) -> None:
    check(it, script, seed, trouble=False)


def build_history(number: int) -> Sent:
    """A history of one resource that was there before, the newest state first."""
    request = {"method": "PUT", "url": "Observation/known-0"}
    known = {"resourceType": "Observation", "id": "known-0"}
    return Sent(
        kind="history",
        entries=[
            {
                "request": request,
                "resource": {**known, "mark": str(n), "identifier": [{"value": f"mine-{n}"}]},
                "fullUrl": "https://ehr.example/fhir/Observation/known-0",
            }
            for n in range(number)
        ],
        limits=Limits(2, 28_000_000, "split"),
        before=({**known, "mark": "before 0", "identifier": [{"value": "key-0"}]},),
    )


def build_cycle() -> Sent:
    """A history whose middle states lead to each other, so that they are refused."""
    url = "https://ehr.example/fhir/Observation/own-1"
    request = {"method": "PUT", "url": "Observation/own-1"}
    own = {"resourceType": "Observation", "id": "own-1", "identifier": [{"value": "mine"}]}
    link = {"refers": [{"reference": f"{url}/_history/2"}], "note": f"{url}/_history/2"}
    states = [{"mark": "1"}, {"mark": "2", "instantiatesCanonical": link["note"], **link}]
    return Sent(
        kind="history",
        entries=[
            {"request": {"method": "DELETE", "url": "Observation/own-1"}, "fullUrl": url},
            *(
                {"request": request, "resource": {**own, **state}, "fullUrl": url}
                for state in (*states, {"mark": "3"})
            ),
        ],
        limits=Limits(2, 28_000_000, "split"),
        before=(),
    )


@limit_examples(150, nightly=NIGHTLY)
@given(sent(), SCRIPTS, SEEDS)
# What is before the refused states and what is after them keep their order.
@example(build_cycle(), b"", 0)
# The first look is throttled: the second attempt finds no base, and a mark of its own delivery.
@example(build_history(2), bytes(7) + b"*", 0)
def test_whatever_goes_wrong_on_the_way_it_comes_out_the_same(
    it: Sent, script: bytes, seed: int
) -> None:
    check(it, script, seed, trouble=True)


@limit_examples(150, nightly=NIGHTLY)
@given(two_sent(), SCRIPTS)
def test_two_deliveries_side_by_side_end_as_one_after_the_other(
    both: tuple[Sent, Sent], script: bytes
) -> None:
    server, whole = both[0].server(), both[0].server()
    world = World(server, both[0].limits, Script(iter(script)), trouble=True)
    told = asyncio.run(carried_together(world, both))
    for it, statuses in zip(both, told, strict=True):
        refused = frozenset(entry.position for entry, _ in planned(it).refused)
        wanted = uncut.done(whole, uncut.asked(it.body, it.ndjson), refused)
        # What a later delivery has written is left out of a transaction, and the rest is sent. So
        # nobody hears that the server would have refused just that, and all with it.
        assume(not ((planned(it).split or _SUPERSEDED in statuses) and wanted.failed))
        assert len(statuses) == len(wanted.statuses)
    later = list(map(fails, told[1])), list(map(fails, wanted.statuses))
    assert later[0] == later[1], (told[1], wanted.statuses)
    assert picture(server.stored) == picture(whole.stored)


def check(it: Sent, script: bytes, seed: int, *, trouble: bool) -> None:
    """The relay's end is that of the whole delivery, and it says so of each entry."""
    asked, its_plan = uncut.asked(it.body, it.ndjson), planned(it)
    server = it.server()
    server.mixed = mixing(seed)
    world = World(server, it.limits, Script(iter(script)), trouble)
    statuses = asyncio.run(carried(world, it, asked))
    refused = frozenset(entry.position for entry, _ in its_plan.refused)
    whole = it.server()
    wanted = uncut.done(whole, asked, refused)
    tell(it, asked, its_plan, world, wanted)
    if asked.atomic and its_plan.split and wanted.failed:
        in_part(it, asked, server, statuses, twice=wanted.twice)
        return
    assert list(map(fails, statuses)) == list(map(fails, wanted.statuses)), (statuses, wanted)
    assert picture(server.stored) == picture(whole.stored)


def in_part(it: Sent, asked: Asked, server: Server, statuses: list[int], *, twice: bool) -> None:
    """A transaction that lost its atomicity and should have failed: what is told as written, and
    nothing else, is as it was asked for.

    No unit shows that searches in two of them lead to one resource. The last one stands then.
    """
    written = frozenset(n for n, status in enumerate(statuses) if not fails(status))
    if twice:
        marks = {asked.entries[n].get("resource", {}).get("mark") for n in written}
        assert {each["mark"] for each in server.stored.values()} <= marks | BEFORE
        return
    assert len(written) < len(statuses), "the whole would have failed"
    part = it.server()
    uncut.done_in_part(part, asked, written)
    assert picture(server.stored) == picture(part.stored)


def fails(status: int) -> bool:
    return status >= 300


def tell(it: Sent, asked: Asked, its_plan: Plan, world: World, wanted: End) -> None:
    """What was explored: shown by --hypothesis-show-statistics."""
    units = [len(lane.units) for lane in its_plan.lanes]
    event(f"kind: {it.kind}")
    event(f"lanes: {min(len(units), 3)}, most units of a lane: {min(max(units, default=0), 3)}")
    event(f"failed by the server: {wanted.failed and not its_plan.refused}")
    for what in {issue.text for _, issue in its_plan.refused}:
        event(f"refused: {what}")
    if its_plan.split:
        how = "meets itself" if wanted.twice else "fails" if wanted.failed else "does not fail"
        event(f"split, {how} as a whole")
    if any(map(uncut.conditional, asked.entries)):
        event("conditional entries")
    if uncut.circles(asked):
        event("conditional entries in a circle")
    for what in world.happened:
        event(f"happened: {what}")
