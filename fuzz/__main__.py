"""`python -m fuzz [--cases N] [--seed S] [--case NUMBER]`: hostile deliveries, on this machine.

Its last line counts how they ended; the exit status is 0 only if none did harm.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from fuzz.cases import case
from fuzz.growth import growths
from fuzz.trial import BROKEN, PLANNED, REJECTED, Verdict, tried

# Cases that one process takes at once; together they take seconds, not minutes.
_AT_ONCE = 100
_PATIENCE = 120.0

# What counts as slow: so many times the usual time for a byte, and more than a pause of the
# machine. What only seems slow is tried again, alone.
_TIMES = 30
_PAUSE = 0.1
_AGAIN = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=os.environ.get("FUZZ_CASES", "60000"))
    parser.add_argument("--seed", default=os.environ.get("FUZZ_SEED", "1"))
    parser.add_argument("--processes", type=int, default=os.environ.get("FUZZ_PROCESSES", "2"))
    parser.add_argument("--case", type=int, help="try this one alone")
    parser.add_argument("--body", type=Path, help="with --case: where to write what was sent")
    given = parser.parse_args()
    if given.case is not None:
        return _one(given.seed, given.case, given.body)
    begun = time.monotonic()
    verdicts: list[Verdict] = []
    peak = 0
    for found, memory in _all(given.seed, given.cases, given.processes):
        for verdict in found:
            if verdict.end == BROKEN:
                print(f"case {verdict.number}: {verdict.why}", flush=True)
        if (len(verdicts) + len(found)) // 10_000 > len(verdicts) // 10_000:
            print(
                f"{time.monotonic() - begun:6.0f} s  {len(verdicts) + len(found)} cases", flush=True
            )
        verdicts += found
        peak = max(peak, memory)
    slow = list(_slow(given.seed, verdicts))
    for verdict in slow:
        print(f"case {verdict.number}: {verdict.seconds:.2f} s for {verdict.size} bytes")
    grown = list(growths())
    for growth in grown:
        print(growth)
    bad = len(slow) + sum(growth.too_fast for growth in grown)
    return _told(verdicts, bad, sum(len(growth.broken) for growth in grown), peak)


def _all(seed: str, cases: int, processes: int) -> Iterator[tuple[list[Verdict], int]]:
    starts = range(0, cases, _AT_ONCE)
    with ProcessPoolExecutor(processes) as pool:
        ends = (min(start + _AT_ONCE, cases) for start in starts)
        yield from pool.map(_some, [seed] * len(starts), starts, ends)


def _some(seed: str, start: int, end: int) -> tuple[list[Verdict], int]:
    """The verdicts, and the most memory that this process ever took, in bytes."""
    faulthandler.dump_traceback_later(_PATIENCE, exit=True)  # says where it hangs
    found = [tried(case(seed, number)) for number in range(start, end)]
    faulthandler.cancel_dump_traceback_later()
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _slow(seed: str, verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    usual = statistics.median(verdict.seconds / verdict.size for verdict in verdicts)
    largest = max(verdict.seconds for verdict in verdicts)
    print(f"usually {usual * 1e6:.2f} s for a megabyte; the longest case took {largest:.2f} s")
    for verdict in verdicts:
        bound = _PAUSE + _TIMES * usual * verdict.size
        if verdict.seconds > bound:
            again = min(tried(case(seed, verdict.number)).seconds for _ in range(_AGAIN))
            if again > bound:
                yield verdict


def _told(verdicts: Sequence[Verdict], slow: int, broken: int, peak: int) -> int:
    ends = Counter(verdict.end for verdict in verdicts) + Counter({BROKEN: broken})
    for end in (REJECTED, PLANNED):
        why = Counter(verdict.why for verdict in verdicts if verdict.end == end)
        print(f"{end}: {' '.join(f'{n}={k}' for n, k in sorted(why.items()))}")
    print(f"memory of the largest process: {peak / 1e6:.0f} MB")
    print(
        f"fuzz: cases={len(verdicts)} rejected={ends[REJECTED]} planned={ends[PLANNED]} "
        f"exceptions={ends[BROKEN]} slow={slow}"
    )
    return 1 if ends[BROKEN] or slow else 0


def _one(seed: str, number: int, body: Path | None) -> int:
    found = case(seed, number)
    if body:
        body.write_bytes(found.ask.body)
    ask = found.ask
    print(f"{found.name}: {ask.method} {ask.type} {ask.id} {dict(ask.headers)!r}")
    print(f"{found.limits} {found.policy} order={found.order} validate={found.validate}")
    verdict = tried(found)
    print(verdict)
    return 1 if verdict.end == BROKEN else 0


if __name__ == "__main__":
    sys.exit(main())
