"""`python -m integration plan FILE`: what the relay would send for a delivery, without sending."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
from pathlib import Path

from integration import preview
from integration.errors import Rejected
from integration.fhir import bundle
from integration.fhir.identity import Naming
from integration.fhir.plan import plan
from integration.fhir.units import Limits
from integration.model import Received


def main(arguments: list[str]) -> int:
    """0 when everything would be sent, 1 when something would be refused, 2 when all is."""
    parser = argparse.ArgumentParser(prog="python -m integration")
    commands = parser.add_subparsers(required=True)
    planning = commands.add_parser("plan", help="print lanes, units, ids and what would be lost")
    planning.add_argument("file", type=Path, help="a bundle, a resource or NDJSON; .gz too")
    planning.add_argument("--max-entries", type=int, default=Limits().entries)
    planning.add_argument("--max-bytes", type=int, default=Limits().bytes)
    planning.add_argument("--over-limit", choices=("split", "reject"), default=Limits().over)
    chosen = parser.parse_args(arguments)
    limits = Limits(chosen.max_entries, chosen.max_bytes, chosen.over_limit)
    return _plan(chosen.file, limits)


def _plan(file: Path, limits: Limits) -> int:
    try:
        body = file.read_bytes()
        body = gzip.decompress(body) if file.suffix == ".gz" else body
    except OSError as error:
        _say(f"{file}: {error.strerror or 'not gzip'}")
        return 2
    lines = ".ndjson" in file.suffixes
    try:
        contents = bundle.read(body, Received("POST", format="ndjson" if lines else "json"))
    except Rejected as error:
        for issue in error.issues:
            _say(f"refused: {issue.expression or file.name}: {issue.text}")
        return 2
    made = plan(contents, Naming("default", hashlib.sha256(body).hexdigest()), limits)
    for line in preview.as_text(contents, made):
        _say(line)
    return 1 if made.refused else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
