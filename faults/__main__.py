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

from faults.chapters import CHAPTERS, Wish, proven
from faults.verdict import Tally
from local.processes import PROJECT

_NUMBER = 2000
_AT_ONCE = 3  # processes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--number", type=int, default=os.environ.get("FAULTS", _NUMBER))
    parser.add_argument("--seed", default=os.environ.get("FAULTS_SEED", "1"))
    parser.add_argument("--only", choices=[*CHAPTERS], action="append", help="a part of the proof")
    parser.add_argument("--app", type=Path, default=PROJECT, help="the folder of function_app.py")
    parser.add_argument("--logs", type=Path, help="a folder for logs; else they are not kept")
    given = parser.parse_args()
    if os.environ.get("FHIR_URL"):
        print("cannot start: unset FHIR_URL, whose server cannot be told to misbehave")
        return 2
    chapters = given.only or [*CHAPTERS]
    print(f"seed {given.seed}, {given.number} faults: {', '.join(chapters)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = given.logs or Path(name)
        wish = Wish(given.number, given.seed, given.app.resolve(), folder, time.time())
        tally = _side_by_side(chapters, wish)
    print(f"{tally.counts['superseded']} entries came after a later one, and were told so")
    print(tally, flush=True)
    return 0 if tally.harmless else 1


def _side_by_side(chapters: Sequence[str], wish: Wish) -> Tally:
    """Each in a process of its own, with neighbours of its own: most of the time is waiting."""
    tally = Tally()
    with ProcessPoolExecutor(_AT_ONCE, mp_context=get_context("spawn")) as processes:
        going = [processes.submit(proven, name, wish) for name in chapters]
        for ended in as_completed(going):
            if ended.exception():
                processes.shutdown(wait=False, cancel_futures=True)
            tally.add(ended.result())
    return tally


if __name__ == "__main__":
    sys.exit(main())
