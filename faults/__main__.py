"""`python -m faults [--number N] [--seed S] [--app FOLDER]`: the proof, on this machine.

Its last line counts what became of every entry; the exit status is 0 only if no harm was done.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from faults.chapters import SCENARIOS, ScenarioOptions, run_scenario
from faults.verdict import Tally
from local.processes import PROJECT

_DEFAULT_NUMBER = 2000
_PROCESSES = 3  # processes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--number", type=int, default=os.environ.get("FAULTS", _DEFAULT_NUMBER))
    parser.add_argument("--seed", default=os.environ.get("FAULTS_SEED", "1"))
    parser.add_argument("--only", choices=[*SCENARIOS], action="append", help="a part of the proof")
    parser.add_argument("--app", type=Path, default=PROJECT, help="the folder of function_app.py")
    parser.add_argument("--logs", type=Path, help="a folder for logs; else they are not kept")
    arguments = parser.parse_args()
    if os.environ.get("FHIR_URL"):
        print("cannot start: unset FHIR_URL, whose server cannot be told to misbehave")
        return 2
    chapters = arguments.only or [*SCENARIOS]
    print(f"seed {arguments.seed}, {arguments.number} faults: {', '.join(chapters)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.logs or Path(name)
        options = ScenarioOptions(
            arguments.number, arguments.seed, arguments.app.resolve(), folder, time.time()
        )
        tally = _run_concurrently(chapters, options)
    print(f"{tally.counts['superseded']} entries came after a later one, and were told so")
    print(tally, flush=True)
    return 0 if tally.is_harmless else 1


def _run_concurrently(chapters: Sequence[str], options: ScenarioOptions) -> Tally:
    """Each in a process of its own, with neighbours of its own: most of the time is waiting."""
    tally = Tally()
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as processes:
        futures = [processes.submit(run_scenario, name, options) for name in chapters]
        for future in as_completed(futures):
            if future.exception():
                processes.shutdown(wait=False, cancel_futures=True)
            tally.add(future.result())
    return tally


if __name__ == "__main__":
    sys.exit(main())
