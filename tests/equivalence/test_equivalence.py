"""The relay leaves the FHIR server as the unsplit bundle would have left it.

Each bundle goes through the relay to a FHIR server that is empty, and plainly to one that is as
empty. Both times it must hold the same resources, which refer to each other in the same way,
whatever their ids, and the same must have been said of each entry. `make nightly` asks HAPI's
server too.

Bundles come from samples/, and from the folder that BUNDLES_DIR names. What no FHIR server takes
as a request, and what is above its limits, is asked of it as the specification means it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from integration.fhir.units import Limits
from local.hapi.server import OWN_URL
from local.processes import PROJECT
from local.samples import load_samples
from local.services import find_free_ports, run_services
from tests.equivalence.graphs import picture
from tests.equivalence.meaning import (
    MOST,
    NDJSON,
    Index,
    Sent,
    by_identity,
    chosen,
    following,
    in_parts,
    mended,
    sent,
)
from tests.equivalence.sides import Hapi, Result, Server, Stored, relayed
from tests.real_bundles import find_root, list_files, list_groups, read_body, unpack

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not (PROJECT / "local/node_modules/@medplum").is_dir(),
        reason="local/node_modules is missing: run make test",
    ),
    pytest.mark.skipif(
        "FHIR_URL" in os.environ and OWN_URL not in os.environ,
        reason="FHIR_URL names a server that must not be emptied",
    ),
]

USUAL = Limits()
# So small that nearly every bundle has to be split.
SMALL = Limits(entries=4)


@dataclass
class Tally:
    """What was found: how often, and of what. `different` is what must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)

    def found(self, bundle: Sent, verdict: str, *how: str) -> None:
        self.counts.update((verdict, *how))
        if verdict == DIFFERENT:
            self.different.append(f"{bundle.name}: {', '.join(how)}")

    def __str__(self) -> str:
        counts = sorted(self.counts.items())
        return " ".join(f"{name.replace(' ', '-')}={number}" for name, number in counts)


EQUAL = "equal"
REFUSED = "refused by both"
DIFFERENT = "different"
VERDICTS = (EQUAL, REFUSED, DIFFERENT)


def bundles(group: str) -> list[Sent]:
    if group == SAMPLES:
        return [sent(each.name, unpack(each.body)) for each in load_samples()]
    return [sent(str(path.relative_to(find_root())), read_body(path)) for path in list_files(group)]


SAMPLES = "samples"
GROUPS = [SAMPLES, *list_groups()]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a FHIR server that may be emptied."""
    if own := os.environ.get(OWN_URL):
        yield own
        return
    folder = tmp_path_factory.mktemp("fhir")
    with run_services(find_free_ports(), folder, parts=("fhir",)) as running:
        yield running.fhir_url


@pytest.fixture
async def server(url: str) -> AsyncIterator[Server]:
    """It is behind the relay first, and asked plainly afterwards."""
    async with httpx.AsyncClient(timeout=120, trust_env=False) as http:
        yield Hapi(url, http) if OWN_URL in os.environ else Server(url, http)


@pytest.mark.parametrize("group", GROUPS)
async def test_what_the_relay_has_split_is_what_the_unsplit_bundle_would_have_left(
    group: str, server: Server
) -> None:
    tally = Tally()
    alone = [
        each for each in bundles(group) if server.can_be_asked(each) and not is_among_others(each)
    ]
    for bundle in alone:
        await _alone(tally, bundle, server)
    _check(tally, len(alone))
    if group == SAMPLES:  # none of them is refused
        assert tally.counts[EQUAL] == len(alone) > 0


@pytest.mark.slow
@pytest.mark.skipif("BUNDLES_DIR" not in os.environ, reason="BUNDLES_DIR names no folder")
async def test_so_is_what_bundles_have_left_that_refer_to_one_another(
    server: Server,
) -> None:
    tally = Tally()
    together = [
        each
        for group in list_groups()
        for each in bundles(group.values[0])
        if server.can_be_asked(each) and is_among_others(each)
    ]
    # What serves others goes first.
    await _together(tally, sorted(together, key=lambda each: each.refers), server)
    _check(tally, len(together))


def is_among_others(bundle: Sent) -> bool:
    """Whether it can be compared only together with others."""
    return bundle.refers or bundle.serves


def _check(tally: Tally, number: int) -> None:
    print(f"equivalence: bundles={number} {tally}")  # noqa: T201 -- shown with -s
    assert tally.different == []
    assert sum(tally.counts[verdict] for verdict in VERDICTS) == number


async def _alone(tally: Tally, bundle: Sent, server: Server) -> None:
    """From nothing, once within the server's limits and once within very small ones."""
    await server.empty()
    result = await relayed(server, bundle, USUAL)
    found = await server.stored()
    if not result.statuses and isinstance(server, Hapi):
        # Intake refuses what Microsoft's server refuses; HAPI's takes more.
        tally.found(bundle, REFUSED)
        return
    await server.empty()
    how, expected = await _plainly(server, bundle, result)
    wanted = await server.stored()
    verdict, *why = _compared([bundle], [result], [expected], found, wanted)
    tally.found(bundle, verdict, how, *why)
    tally.counts["refused at intake"] += verdict == REFUSED and not result.statuses
    if verdict != EQUAL or len(bundle.entries) <= SMALL.entries:
        return
    await server.empty()
    result = await relayed(server, bundle, SMALL)
    found = await server.stored()
    verdict, *why = _compared([bundle], [result], [expected], found, wanted)
    tally.counts["in small units too"] += verdict == EQUAL
    if verdict != EQUAL:
        tally.found(bundle, DIFFERENT, "in small units", *why)


async def _together(tally: Tally, everything: Sequence[Sent], server: Server) -> None:
    """What refers to what others bring is compared with it, at the end of them all."""
    await server.empty()
    results = [await relayed(server, bundle, Limits(entries=100)) for bundle in everything]
    found = await server.stored()
    await server.empty()
    expected = []
    for bundle, said in zip(everything, results, strict=True):
        how, result = await _plainly(server, bundle, said)
        expected.append(result)
        tally.counts.update((how, "among others"))
    wanted = await server.stored()
    for bundle, one, other in zip(everything, results, expected, strict=True):
        verdict = REFUSED if one.refused and other.refused else EQUAL
        tally.found(bundle, verdict if _alike(one, other) else DIFFERENT)
    verdict, *why = _compared(everything, results, expected, found, wanted)
    if everything and verdict != EQUAL:
        tally.different.append(f"what refers to others: {', '.join(why)}")


async def _plainly(plain: Server, bundle: Sent, relayed: Result) -> tuple[str, Result]:
    """The same without the relay, and how: as it is, if a server takes it so."""
    if bundle.requests and len(bundle.entries) > MOST:
        parts = [await plain.post(part) for part in in_parts(bundle)]
        return "in parts", Result(
            [status for part in parts for status in part.statuses],
            [place for part in parts for place in part.places],
        )
    if bundle.kind != NDJSON and (bundle.requests or not relayed.statuses):
        result = await plain.post(bundle.body)
        if result.refused and not relayed.refused:
            return "mended", await plain.post(mended(bundle))
        return "as sent", result
    index, statuses, places = Index(bundle.entries), list[int](), list[str | None]()
    for entry in bundle.entries:
        asked = by_identity(str(bundle.kind), entry, index)
        result = Result([asked], [None]) if isinstance(asked, int) else await plain.write(*asked)
        statuses += result.statuses
        places += result.places
    return "by identity", Result(statuses, places)


def _compared(
    everything: Sequence[Sent],
    results: Sequence[Result],
    expected: Sequence[Result],
    found: Stored,
    wanted: Stored,
) -> list[str]:
    """The verdict, and what else is to be told of it."""
    if all(one.refused and other.refused for one, other in zip(results, expected, strict=True)):
        kept = found.resources or wanted.resources
        return [DIFFERENT, "refused, but not wholly"] if kept else [REFUSED]
    if not all(_alike(one, other) for one, other in zip(results, expected, strict=True)):
        return [DIFFERENT, "in what was said of the entries"]
    if found.versions != wanted.versions:
        return [DIFFERENT, "in the number of versions"]
    names = chosen([entry for each in everything for entry in each.entries])
    sought = picture(found.resources, names)
    if sought == picture(wanted.resources, names):
        return [EQUAL]
    resources, count = wanted.resources, 0
    for bundle, result in zip(everything, expected, strict=True):
        if result.places:
            resources, more = following(resources, bundle.entries, result.places)
            count += more
    if count and sought == picture(resources, names):
        return [EQUAL, "with links that the server had left as they came"]
    return [DIFFERENT, "in what is stored"]


def _alike(one: Result, other: Result) -> bool:
    """Whether the same was said of each entry; nothing is, where intake refused them all."""
    return one.statuses == other.statuses or (one.refused and other.refused)
