"""Cut up, carried in any order and interrupted anywhere, a delivery does what it would do whole."""

from __future__ import annotations

import asyncio

from hypothesis import assume, event, given
from hypothesis import strategies as st

from integration.fhir.plan import Plan
from tests.model import uncut
from tests.model.conftest import EXPLORED
from tests.model.deliveries import SentDelivery, deliveries, delivery_pairs
from tests.model.processing import make_order, make_plan, run_deliveries, run_delivery
from tests.model.same import describe_state
from tests.model.server import Server
from tests.model.uncut import Expected, RequestedDelivery
from tests.model.world import Script, World

SCRIPTS = st.one_of(st.binary(max_size=20), st.binary(min_size=40, max_size=120))
BEFORE = {f"before {number}" for number in range(3)}
SEEDS = st.integers(0, 7)


@EXPLORED
@given(deliveries(), SCRIPTS, SEEDS)
def test_what_is_cut_up_comes_out_as_if_it_were_whole(
    sent: SentDelivery, script: bytes, seed: int
) -> None:
    check_delivery(sent, script, seed, trouble=False)


@EXPLORED
@given(deliveries(), SCRIPTS, SEEDS)
def test_whatever_goes_wrong_on_the_way_it_comes_out_the_same(
    sent: SentDelivery, script: bytes, seed: int
) -> None:
    check_delivery(sent, script, seed, trouble=True)


@EXPLORED
@given(delivery_pairs(), SCRIPTS)
def test_two_deliveries_side_by_side_end_as_one_after_the_other(
    both: tuple[SentDelivery, SentDelivery], script: bytes
) -> None:
    server, whole = both[0].server(), both[0].server()
    world = World(server, both[0].limits, Script(iter(script)), trouble=True)
    statuses_of_both = asyncio.run(run_deliveries(world, both))
    for sent, statuses in zip(both, statuses_of_both, strict=True):
        refused = frozenset(entry.position for entry, _ in make_plan(sent).refused)
        wanted = uncut.run_whole(whole, uncut.parse_delivery(sent.body, sent.ndjson), refused)
        assume(not (make_plan(sent).split and wanted.failed))
        assert len(statuses) == len(wanted.statuses)
    later = list(map(is_failure, statuses_of_both[1])), list(map(is_failure, wanted.statuses))
    assert later[0] == later[1], (statuses_of_both[1], wanted.statuses)
    assert describe_state(server.stored) == describe_state(whole.stored)


def check_delivery(sent: SentDelivery, script: bytes, seed: int, *, trouble: bool) -> None:
    """The relay's end is that of the whole delivery, and it says so of each entry."""
    requested, its_plan = uncut.parse_delivery(sent.body, sent.ndjson), make_plan(sent)
    server = sent.server()
    server.mixed = make_order(seed)
    world = World(server, sent.limits, Script(iter(script)), trouble)
    statuses = asyncio.run(run_delivery(world, sent, requested))
    refused = frozenset(entry.position for entry, _ in its_plan.refused)
    whole = sent.server()
    wanted = uncut.run_whole(whole, requested, refused)
    record_coverage(sent, requested, its_plan, world, wanted)
    if requested.atomic and its_plan.split and wanted.failed:
        check_partial_write(sent, requested, server, statuses, twice=wanted.twice)
        return
    assert list(map(is_failure, statuses)) == list(map(is_failure, wanted.statuses)), (
        statuses,
        wanted,
    )
    assert describe_state(server.stored) == describe_state(whole.stored)


def check_partial_write(
    sent: SentDelivery,
    requested: RequestedDelivery,
    server: Server,
    statuses: list[int],
    *,
    twice: bool,
) -> None:
    """A transaction that lost its atomicity and should have failed: what is told as written, and
    nothing else, is as it was asked for.

    No unit shows that searches in two of them lead to one resource. The last one stands then.
    """
    written = frozenset(n for n, status in enumerate(statuses) if not is_failure(status))
    if twice:
        marks = {requested.entries[n].get("resource", {}).get("mark") for n in written}
        assert {resource["mark"] for resource in server.stored.values()} <= marks | BEFORE
        return
    assert len(written) < len(statuses), "the whole would have failed"
    part = sent.server()
    uncut.run_in_part(part, requested, written)
    assert describe_state(server.stored) == describe_state(part.stored)


def is_failure(status: int) -> bool:
    return status >= 300


def record_coverage(
    sent: SentDelivery, asked: RequestedDelivery, its_plan: Plan, world: World, wanted: Expected
) -> None:
    """What was explored: shown by --hypothesis-show-statistics."""
    units = [len(lane.units) for lane in its_plan.lanes]
    event(f"kind: {sent.kind}")
    event(f"lanes: {min(len(units), 3)}, most units of a lane: {min(max(units, default=0), 3)}")
    event(f"failed by the server: {wanted.failed and not its_plan.refused}")
    for what in {issue.text for _, issue in its_plan.refused}:
        event(f"refused: {what}")
    if its_plan.split:
        how = "meets itself" if wanted.twice else "fails" if wanted.failed else "does not fail"
        event(f"split, {how} as a whole")
    if any(map(uncut.is_conditional, asked.entries)):
        event("conditional entries")
    if uncut.find_cycles(asked):
        event("conditional entries in a circle")
    for what in world.happened:
        event(f"happened: {what}")
