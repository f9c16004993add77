"""`python -m faults [--number N] [--seed S] [--app FOLDER]`: inject faults on this machine.

The last line counts the results of all entries. The exit status is 0 only if each kind of fault was
injected, and no entry was lost, doubled, stale or unexplained.
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

from faults.chapters import SCENARIOS, ScenarioOptions, list_missing, run_scenario
from faults.verdict import Tally
from local.processes import PROJECT

_DEFAULT_NUMBER = 2200
_PROCESSES = 3  # processes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--number", type=int, default=os.environ.get("FAULTS", _DEFAULT_NUMBER))
    parser.add_argument("--seed", default=os.environ.get("FAULTS_SEED", "1"))
    parser.add_argument(
        "--chapter",
        "--only",
        choices=[*SCENARIOS],
        action="append",
        dest="only",
        help="run this alone",
    )
    parser.add_argument("--app", type=Path, default=PROJECT, help="the folder of function_app.py")
    parser.add_argument("--logs", type=Path, help="keep the logs in this folder")
    arguments = parser.parse_args()
    if os.environ.get("FHIR_URL"):
        print("cannot start: unset FHIR_URL; faults need the local FHIR server")
        return 2
    chapters = arguments.only or [*SCENARIOS]
    print(f"seed {arguments.seed}, {arguments.number} faults: {', '.join(chapters)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.logs or Path(name)
        options = ScenarioOptions(
            number=arguments.number,
            seed=arguments.seed,
            app=arguments.app.resolve(),
            folder=folder,
            started=time.time(),
        )
        tally = _run_concurrently(chapters, options)
    print(f"{tally.counts['superseded']} entries were superseded by a later one, and reported so")
    for kind, number in sorted((+tally.injected).items()):
        print(f"{number:6}  {kind}")
    missing = list_missing(chapters, tally)
    for kind in missing:
        print(f"NOT INJECTED: {kind}; this run proves nothing of it")
    print(tally, flush=True)
    return 0 if tally.is_harmless and not missing else 1


def _run_concurrently(chapters: Sequence[str], options: ScenarioOptions) -> Tally:
    """Run each scenario in its own process with its own services: most of the time is waiting."""
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
