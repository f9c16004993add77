"""A correction ends as if the corrected bytes had come in the place of the first ones."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import assume, event, given
from hypothesis import strategies as st

from tests.model import uncut
from tests.model.carrying import Read, carried_and_corrected, planned
from tests.model.deliveries import Body, Corrected, Sent, corrected
from tests.model.same import picture
from tests.model.server import Server
from tests.model.world import Script, World
from tests.randomness import limit_examples

SCRIPTS = st.one_of(st.binary(max_size=20), st.binary(min_size=40, max_size=120))
NIGHTLY = 5_000


@limit_examples(60, nightly=NIGHTLY)
@given(corrected(), SCRIPTS, st.booleans(), st.booleans())
def test_a_correction_takes_the_place_of_its_delivery_and_is_never_over_something_newer(
    it: Corrected, script: bytes, is_parked: bool, is_late: bool
) -> None:
    """What it creates is what the links of the first one lead to: docs/decisions/0040."""
    assume(not planned(it.mended).refused)
    server, whole = it.first.server(), it.first.server()
    world = World(server, it.first.limits, Script(iter(script)), trouble=True)
    read = asyncio.run(carried_and_corrected(world, it, is_parked=is_parked, is_late=is_late))
    tell(it, read, is_late=is_late)

    wanted = done(whole, it.first if read.corrected is None else it.mended)
    assume(not wanted.failed)
    newer = done(whole, it.newer)
    assume(not (planned(it.newer).split and newer.failed))
    assert [status >= 300 for status in read.newer] == [status >= 300 for status in newer.statuses]
    assert picture(server.stored) == picture(whole.stored)
    if read.corrected is not None:
        failed = {n for n, status in enumerate(read.corrected) if status >= 300}
        assert failed <= list_shared(it)


def done(server: Server, it: Sent) -> uncut.End:
    refused = frozenset(entry.position for entry, _ in planned(it).refused)
    return uncut.done(server, uncut.asked(it.body, it.ndjson), refused)


def list_shared(it: Corrected) -> set[int]:
    """The entries of the correction whose resources the newer delivery names, or another entry that
    may have come later: only those may be superseded."""
    mended, newer = (uncut.asked(sent.body, sent.ndjson).entries for sent in (it.mended, it.newer))
    names = Counter(name for name in map(get_identity, mended) if name)
    names.update(filter(None, map(get_identity, newer)))
    return {n for n, entry in enumerate(mended) if names[get_identity(entry) or ""] > 1}


def get_identity(entry: Body) -> str | None:
    """`Type/id` of what an entry writes; None for a create, whose id nobody else knows."""
    request = entry["request"]
    return None if request["method"] == "POST" else str(request["url"])


def tell(it: Corrected, read: Read, *, is_late: bool) -> None:
    """What was explored: shown by --hypothesis-show-statistics."""
    event(f"kind: {it.first.kind}, then {it.newer.kind}")
    event(f"parked: {read.was_parked}")
    event(f"corrected: {read.corrected is not None}, after the newer one: {is_late}")
    event(f"superseded: {any(status >= 300 for status in read.corrected or ())}")
