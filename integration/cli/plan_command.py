"""`python -m integration plan FILE`: show what the relay would send for a delivery."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from integration.app.settings import DeliverySettings, read_delivery_settings
from integration.cli.terminal import PrintLine, read_file
from integration.core.errors import Misconfigured, Rejected
from integration.core.model import Policy
from integration.fhir.units import Limits
from integration.intake import dry_run
from integration.intake.accept import Intake
from integration.intake.http_request import IncomingRequest
from integration.journal.store import MemoryJournal
from integration.journal.table_keys import make_delivery_id
from integration.queues.queue_sender import MemoryQueueSender


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options. Limits that no option gives come from the settings."""
    parser.add_argument("file", type=Path, help="a bundle, a resource or NDJSON; may end with .gz")
    parser.add_argument(
        "--max-entries", type=int, metavar="N", help="entries of one request (UNIT_MAX_ENTRIES)"
    )
    parser.add_argument(
        "--max-bytes", type=int, metavar="N", help="bytes of one request (UNIT_MAX_BYTES)"
    )
    parser.add_argument(
        "--over-limit",
        choices=("split", "reject"),
        help="what happens to a transaction over these limits (OVER_LIMIT)",
    )
    parser.add_argument("--json", action="store_true", help="print every entry, as JSON")


def run(chosen: argparse.Namespace, print_line: PrintLine) -> int:
    """Return 0 if everything would be sent, 1 if some of it would be refused, 2 if all of it."""
    file: Path = chosen.file
    try:
        settings = read_delivery_settings()
        body = read_file(file)
        preview = asyncio.run(
            dry_run.plan_delivery(
                _build_intake(settings), _build_limits(chosen, settings), _build_request(file, body)
            )
        )
    except Misconfigured as error:
        print_line(str(error))
        return 2
    except Rejected as error:
        for issue in error.issues:
            print_line(f"refused: {issue.expression or file.name}: {issue.text}")
        return 2
    for line in (
        [msgspec.json.encode(preview).decode()] if chosen.json else dry_run.as_text(preview)
    ):
        print_line(line)
    return 1 if any(issue["severity"] == "error" for issue in preview["refused"]) else 0


def _build_limits(chosen: argparse.Namespace, settings: DeliverySettings) -> Limits:
    return Limits(
        settings.unit_max_entries if chosen.max_entries is None else chosen.max_entries,
        settings.unit_max_bytes if chosen.max_bytes is None else chosen.max_bytes,
        chosen.over_limit or settings.over_limit,
    )


def _build_request(file: Path, body: bytes) -> IncomingRequest:
    media = "application/fhir+ndjson" if ".ndjson" in file.suffixes else "application/fhir+json"
    return IncomingRequest(
        method="POST", type=None, id=None, headers={"content-type": media}, body=body
    )


def _build_intake(settings: DeliverySettings) -> Intake:
    """The app's own intake, with an empty journal in memory: nothing is kept or sent."""
    return Intake(
        journal=MemoryJournal(),
        queue=MemoryQueueSender(),
        now=lambda: datetime.now(UTC),
        new_id=lambda now: make_delivery_id(now, 0),
        max_bytes=settings.max_delivery_bytes,
        max_entries=settings.max_delivery_entries,
        policy=Policy(settings.messages, settings.documents, settings.dangling, settings.validate),
    )
