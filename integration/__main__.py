"""`python -m integration plan FILE`: what the relay would send for a delivery, without sending."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from integration import preview
from integration.asking import Ask
from integration.errors import Misconfigured, Rejected
from integration.fhir.units import Limits
from integration.intake import Intake
from integration.journal.keys import delivery_id
from integration.journal.store import MemoryJournal
from integration.model import Policy
from integration.outbox import MemoryOutbox
from integration.settings import Reading, reading_from_env


def main(arguments: list[str]) -> int:
    """0 when everything would be sent, 1 when something would be refused, 2 when all is."""
    try:
        reading = reading_from_env()
    except Misconfigured as error:
        _say(str(error))
        return 2
    parser = argparse.ArgumentParser(prog="python -m integration")
    commands = parser.add_subparsers(required=True)
    planning = commands.add_parser("plan", help="print lanes, units, ids and what would be lost")
    planning.add_argument("file", type=Path, help="a bundle, a resource or NDJSON; .gz too")
    planning.add_argument("--max-entries", type=int, default=reading.unit_max_entries)
    planning.add_argument("--max-bytes", type=int, default=reading.unit_max_bytes)
    planning.add_argument("--over-limit", choices=("split", "reject"), default=reading.over_limit)
    planning.add_argument("--json", action="store_true", help="every entry, as dry-run answers")
    chosen = parser.parse_args(arguments)
    limits = Limits(chosen.max_entries, chosen.max_bytes, chosen.over_limit)
    return _plan(chosen.file, reading, limits, as_json=chosen.json)


def _plan(file: Path, reading: Reading, limits: Limits, *, as_json: bool) -> int:
    try:
        body = file.read_bytes()
        body = gzip.decompress(body) if file.suffix == ".gz" else body
    except OSError as error:
        _say(f"{file}: {error.strerror or 'not gzip'}")
        return 2
    media = "application/fhir+ndjson" if ".ndjson" in file.suffixes else "application/fhir+json"
    ask = Ask("POST", None, None, {"content-type": media}, body)
    try:
        told = asyncio.run(preview.preview(_door(reading), limits, ask))
    except Rejected as error:
        for issue in error.issues:
            _say(f"refused: {issue.expression or file.name}: {issue.text}")
        return 2
    for line in [msgspec.json.encode(told).decode()] if as_json else preview.as_text(told):
        _say(line)
    return 1 if _refuses(told) else 0


def _door(reading: Reading) -> Intake:
    """The app's own door, with a journal that has seen nothing."""
    return Intake(
        MemoryJournal(),
        MemoryOutbox(),
        lambda: datetime.now(UTC),
        lambda now: delivery_id(now, 0),
        reading.max_delivery_bytes,
        reading.validate,
        policy=Policy(reading.messages, reading.documents, reading.dangling),
    )


def _refuses(told: Mapping[str, Any]) -> bool:
    return any(issue["severity"] == "error" for issue in told["refused"])


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
