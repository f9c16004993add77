"""What the app would do, told on a terminal without doing it; and rows mended that differ.

`python -m integration plan FILE`: what the relay would send for a delivery.
`python -m integration map FILE`: the rows that resources would become, and why.
`python -m integration toolkit SOURCE --to FOLDER`: the maps of an organisation's toolkit, ours.
`python -m integration reconcile`: what differs between FHIR and Dataverse, told and mended.
`python -m integration provision`: Dataverse gets what the relay needs of it.
`python -m integration check`: whether every neighbour is there, and open to this identity.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from getpass import getpass
from pathlib import Path
from typing import Any

import msgspec

from integration.app.settings import DeliverySettings, read_delivery_settings
from integration.check import command as check_command
from integration.cli import map_command, toolkit_command
from integration.cli.map_command import Tables
from integration.core.errors import Misconfigured, Rejected
from integration.core.model import Policy, Request, Response
from integration.dataverse.client import Dataverse
from integration.dataverse.requests import API
from integration.fhir.units import Limits
from integration.intake import dry_run
from integration.intake.accept import Intake
from integration.intake.http_request import IncomingRequest
from integration.journal import synthetic_deliveries
from integration.journal.keys import make_delivery_id
from integration.journal.store import MemoryJournal
from integration.mapping.toolkit import client as toolkit_client
from integration.mapping.toolkit.client import Organisation
from integration.mapping.toolkit.rows import NewerColumns, Toolkit
from integration.provision import command as provision_command
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.reconcile import command as reconcile_command
from integration.reconcile.walk import ReconcileRun


def main(arguments: list[str]) -> int:
    """0 when everything would be done, 1 when something would be refused, 2 when all is."""
    try:
        reading = read_delivery_settings()
    except Misconfigured as error:
        _print_line(str(error))
        return 2
    parser = argparse.ArgumentParser(prog="python -m integration")
    commands = parser.add_subparsers(required=True)
    planning = commands.add_parser("plan", help="print lanes, units, ids and what would be lost")
    planning.add_argument("file", type=Path, help="a bundle, a resource or NDJSON; .gz too")
    planning.add_argument("--max-entries", type=int, default=reading.unit_max_entries)
    planning.add_argument("--max-bytes", type=int, default=reading.unit_max_bytes)
    planning.add_argument("--over-limit", choices=("split", "reject"), default=reading.over_limit)
    planning.add_argument("--json", action="store_true", help="every entry, as dry-run answers")
    mapping = commands.add_parser("map", help="print the rows that resources would become, and why")
    map_command.add_options(mapping)
    mapping.set_defaults(map=True)
    importing = commands.add_parser(
        "toolkit", help="make maps of the Data integration toolkit ours"
    )
    toolkit_command.add_options(importing)
    importing.set_defaults(toolkit=True)
    reconciling = commands.add_parser("reconcile", help="find and mend rows that differ from FHIR")
    reconcile_command.add_options(reconciling)
    reconciling.set_defaults(reconcile=True)
    provisioning = commands.add_parser("provision", help="set Dataverse up, adding what is lacking")
    provision_command.add_options(provisioning)
    provisioning.set_defaults(provision=True)
    checking = commands.add_parser("check", help="ask every neighbour whether all is well there")
    check_command.add_options(checking)
    checking.set_defaults(check_all=True)
    chosen = parser.parse_args(arguments)
    if "check_all" in chosen:
        return _run_check(chosen)
    if "reconcile" in chosen:
        return _run_reconcile(chosen)
    if "provision" in chosen:
        return provision_command.run(chosen, _open_dataverse, getpass, _print_line)
    if "toolkit" in chosen:
        return toolkit_command.run(chosen, _fetch_toolkit, _print_line)
    if "map" in chosen:
        body = _read_bytes(chosen.file)
        return 2 if body is None else map_command.run(chosen, body, _fetch_tables, _print_line)
    limits = Limits(chosen.max_entries, chosen.max_bytes, chosen.over_limit)
    return _run_plan(chosen.file, reading, limits, as_json=chosen.json)


def _run_plan(file: Path, reading: DeliverySettings, limits: Limits, *, as_json: bool) -> int:
    body = _read_bytes(file)
    if body is None:
        return 2
    media = "application/fhir+ndjson" if ".ndjson" in file.suffixes else "application/fhir+json"
    ask = IncomingRequest(
        method="POST", type=None, id=None, headers={"content-type": media}, body=body
    )
    try:
        preview = asyncio.run(dry_run.plan_delivery(_build_intake(reading), limits, ask))
    except Rejected as error:
        for issue in error.issues:
            _print_line(f"refused: {issue.expression or file.name}: {issue.text}")
        return 2
    for line in [msgspec.json.encode(preview).decode()] if as_json else dry_run.as_text(preview):
        _print_line(line)
    return 1 if _has_errors(preview) else 0


def _read_bytes(file: Path) -> bytes | None:
    try:
        body = file.read_bytes()
        return gzip.decompress(body) if file.suffix == ".gz" else body
    except OSError as error:
        _print_line(f"{file}: {error.strerror or 'not gzip'}")
        return None


@asynccontextmanager
async def _open_dataverse() -> AsyncIterator[Dataverse]:
    from integration.app import wiring  # with all it imports, which the other commands do without

    async with wiring.open_dataverse() as dataverse:
        yield dataverse


async def _fetch_tables(names: Iterable[str]) -> Tables:
    """As the organisation of the settings has them."""
    from integration.app import wiring  # with all it imports, which the other commands do without

    async with wiring.open_dataverse() as dataverse:
        return {name: await dataverse.get_columns(name) for name in names}


def _build_intake(reading: DeliverySettings) -> Intake:
    """The app's own door, with a journal that has seen nothing."""
    return Intake(
        journal=MemoryJournal(),
        queue=MemoryQueueSender(),
        now=lambda: datetime.now(UTC),
        new_id=lambda now: make_delivery_id(now, 0),
        max_bytes=reading.max_delivery_bytes,
        validate=reading.validate,
        policy=Policy(reading.messages, reading.documents, reading.dangling),
    )


async def _fetch_toolkit(named: NewerColumns) -> Toolkit:
    from integration.app import wiring  # with all it imports, which the other commands do without

    async with wiring.open_dataverse() as dataverse:

        async def send(request: Request) -> Response:
            return await dataverse.send(request, "toolkit")

        organisation = Organisation(send, dataverse.upstream.base, API)
        return await toolkit_client.fetch_toolkit(organisation, named)


def _run_check(chosen: argparse.Namespace) -> int:
    from integration.check import connections  # with all it imports, likewise

    return check_command.run(chosen, connections.open_connections, _print_line)


def _run_reconcile(chosen: argparse.Namespace) -> int:
    try:
        return asyncio.run(reconcile_command.run(chosen, open_reconcile, _print_line))
    except KeyboardInterrupt:  # which has been told
        return 2


@asynccontextmanager
async def open_reconcile(dry: bool) -> AsyncIterator[ReconcileRun]:
    """What the app mirrors, with all its parts; what it does is listed as a delivery's."""
    from integration.app import wiring  # with all it imports, which the other commands do without

    try:
        parts = await wiring.get_parts()
        mirrored = {
            name
            for name, queue in (await parts.data_routes.get_change_queues()).items()
            if queue == MIRROR_QUEUE
        }
        if not mirrored:
            raise Misconfigured("nothing is mirrored: MIRROR_TO is off, or no map is in use")
        now = parts.now()
        run = parts.intake.new_id(now)
        if not dry:
            await synthetic_deliveries.add_synthetic_delivery(
                parts.journal, run, "reconcile", now, now
            )
        async with parts.mirror.activities.track(delivery=run):
            maps = {name: entity for name, entity in parts.mirror.maps.items() if name in mirrored}
            mirror = replace(parts.mirror, maps=maps)
            yield ReconcileRun(mirror, parts.fhir, parts.dataverse, run, asyncio.sleep, dry)
    finally:
        await wiring.close_parts()


def _has_errors(preview: Mapping[str, Any]) -> bool:
    return any(issue["severity"] == "error" for issue in preview["refused"])


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
