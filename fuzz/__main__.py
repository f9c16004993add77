"""`python -m fuzz [--cases N] [--proofs N] [--seed S] [--case NUMBER]`: fuzz proofs and intake.

First the proofs of senders, then intake and planning. The last line counts the results of those,
the line `proofs:` the results of the others. The exit status is 0 only if no case raised an
unexpected exception, took too long, or was proven although it was changed.
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

from fuzz.cases import make_case
from fuzz.growth import measure_growths
from fuzz.proofs import run_proofs
from fuzz.trial import BROKEN, PLANNED, REJECTED, CaseResult, try_case

# Cases that one task runs; together they take seconds, not minutes.
_CASES_PER_TASK = 100
_PATIENCE = 120.0

# A case is slow if it takes this many times the median time per byte, plus a pause of the machine.
# Slow cases are run again alone, to be sure.
_SLOW_RATIO = 30
_PAUSE = 0.1
_REPEATS = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=os.environ.get("FUZZ_CASES", "60000"))
    parser.add_argument("--proofs", type=int, default=os.environ.get("FUZZ_PROOFS", "50000"))
    parser.add_argument("--seed", default=os.environ.get("FUZZ_SEED", "1"))
    parser.add_argument("--processes", type=int, default=os.environ.get("FUZZ_PROCESSES", "2"))
    parser.add_argument("--case", type=int, help="run this case alone")
    parser.add_argument("--body", type=Path, help="with --case: write the body to this file")
    arguments = parser.parse_args()
    if arguments.case is not None:
        return _run_one(arguments.seed, arguments.case, arguments.body)
    started = time.monotonic()
    faults = run_proofs(arguments.seed, arguments.proofs, arguments.processes)
    if arguments.cases == 0:
        return 1 if faults else 0
    results: list[CaseResult] = []
    peak = 0
    for found, memory in _run_all(arguments.seed, arguments.cases, arguments.processes):
        for result in found:
            if result.outcome == BROKEN:
                print(f"case {result.number}: {result.why}", flush=True)
        if (len(results) + len(found)) // 10_000 > len(results) // 10_000:
            print(
                f"{time.monotonic() - started:6.0f} s  {len(results) + len(found)} cases",
                flush=True,
            )
        results += found
        peak = max(peak, memory)
    slow = list(_find_slow(arguments.seed, results))
    for result in slow:
        print(f"case {result.number}: {result.seconds:.2f} s for {result.size} bytes")
    growths = list(measure_growths())
    for growth in growths:
        print(growth)
    bad = len(slow) + sum(growth.is_superlinear for growth in growths)
    broken = sum(len(growth.broken) for growth in growths)
    return _print_summary(results, bad, broken, peak) or (1 if faults else 0)


def _run_all(seed: str, cases: int, processes: int) -> Iterator[tuple[list[CaseResult], int]]:
    starts = range(0, cases, _CASES_PER_TASK)
    with ProcessPoolExecutor(processes) as pool:
        ends = (min(start + _CASES_PER_TASK, cases) for start in starts)
        yield from pool.map(_run_range, [seed] * len(starts), starts, ends)


def _run_range(seed: str, start: int, end: int) -> tuple[list[CaseResult], int]:
    """Return the results, and the peak memory of this process in bytes."""
    faulthandler.dump_traceback_later(_PATIENCE, exit=True)  # prints where it hangs
    results = [try_case(make_case(seed, number)) for number in range(start, end)]
    faulthandler.cancel_dump_traceback_later()
    return results, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _find_slow(seed: str, results: Sequence[CaseResult]) -> Iterator[CaseResult]:
    usual = statistics.median(result.seconds / result.size for result in results)
    largest = max(result.seconds for result in results)
    print(f"median: {usual * 1e6:.2f} s for a megabyte; the longest case took {largest:.2f} s")
    for result in results:
        bound = _PAUSE + _SLOW_RATIO * usual * result.size
        if result.seconds > bound:
            again = min(try_case(make_case(seed, result.number)).seconds for _ in range(_REPEATS))
            if again > bound:
                yield result


def _print_summary(results: Sequence[CaseResult], slow: int, broken: int, peak: int) -> int:
    outcomes = Counter(result.outcome for result in results) + Counter({BROKEN: broken})
    for end in (REJECTED, PLANNED):
        why = Counter(result.why for result in results if result.outcome == end)
        print(f"{end}: {' '.join(f'{n}={k}' for n, k in sorted(why.items()))}")
    print(f"memory of the largest process: {peak / 1e6:.0f} MB")
    print(
        f"fuzz: cases={len(results)} rejected={outcomes[REJECTED]} planned={outcomes[PLANNED]} "
        f"exceptions={outcomes[BROKEN]} slow={slow}"
    )
    return 1 if outcomes[BROKEN] or slow else 0


def _run_one(seed: str, number: int, body: Path | None) -> int:
    case = make_case(seed, number)
    if body:
        body.write_bytes(case.request.body)
    ask = case.request
    print(f"{case.name}: {ask.method} {ask.type} {ask.id} {dict(ask.headers)!r}")
    print(f"{case.limits} {case.policy} order={case.write_order}")
    result = try_case(case)
    print(result)
    return 1 if result.outcome == BROKEN else 0


if __name__ == "__main__":
    sys.exit(main())
