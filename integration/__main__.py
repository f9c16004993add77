"""What the app would do, told on a terminal without doing it; and rows mended that differ.

`python -m integration plan FILE`: what the relay would send for a delivery.
`python -m integration map FILE`: the rows that resources would become, and why.
`python -m integration toolkit SOURCE --to FOLDER`: the maps of an organisation's toolkit, ours.
`python -m integration reconcile`: what differs between FHIR and Dataverse, told and mended.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from integration import exact_json, preview
from integration.asking import Ask
from integration.dataverse.requests import API
from integration.errors import Misconfigured, Rejected, Unavailable, Unmappable
from integration.fhir.units import Limits
from integration.intake import Intake
from integration.journal import occasions
from integration.journal.keys import delivery_id
from integration.journal.store import MemoryJournal
from integration.mapping import engine, explain, load
from integration.mapping.misfits import misfits
from integration.mapping.model import EntityMap
from integration.mapping.toolkit import client as toolkit_client
from integration.mapping.toolkit import command as toolkit_command
from integration.mapping.toolkit.client import Organisation
from integration.mapping.toolkit.rows import Later, Toolkit
from integration.model import Column, Policy, Request, Response
from integration.outbox import MemoryOutbox
from integration.reconcile import command as reconcile_command
from integration.reconcile.walk import Reconcile
from integration.settings import Reading, reading_from_env

Tables = Mapping[str, Mapping[str, Column]]


def main(arguments: list[str]) -> int:
    """0 when everything would be done, 1 when something would be refused, 2 when all is."""
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
    mapping = commands.add_parser("map", help="print the rows that resources would become, and why")
    _add_map_options(mapping)
    importing = commands.add_parser(
        "toolkit", help="make maps of the Data integration toolkit ours"
    )
    toolkit_command.add_options(importing)
    importing.set_defaults(toolkit=True)
    reconciling = commands.add_parser("reconcile", help="find and mend rows that differ from FHIR")
    reconcile_command.add_options(reconciling)
    reconciling.set_defaults(reconcile=True)
    chosen = parser.parse_args(arguments)
    if "reconcile" in chosen:
        return _reconciled(chosen)
    if "toolkit" in chosen:
        return toolkit_command.run(chosen, _tenant, _say)
    if "enable" in chosen:
        return _mapped(chosen)
    limits = Limits(chosen.max_entries, chosen.max_bytes, chosen.over_limit)
    return _plan(chosen.file, reading, limits, as_json=chosen.json)


def _add_map_options(mapping: argparse.ArgumentParser) -> None:
    mapping.add_argument("file", type=Path, help="a resource or a bundle; .gz too")
    mapping.add_argument("--set", choices=("healthcare", "plain"), default="healthcare")
    mapping.add_argument("--prefix", default="new", help="the publisher's, for {prefix}")
    mapping.add_argument("--maps", type=Path, help="the folder of the organisation's own maps")
    mapping.add_argument("--enable", action="append", default=[], help="a map, by its file name")
    mapping.add_argument("--base", help="the FHIR server's address in absolute references")
    mapping.add_argument("--empty", action="store_true", help="columns too that are cleared")
    mapping.add_argument("--check", action="store_true", help="by the tables of DATAVERSE_URL")


def _plan(file: Path, reading: Reading, limits: Limits, *, as_json: bool) -> int:
    body = _bytes(file)
    if body is None:
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


def _bytes(file: Path) -> bytes | None:
    try:
        body = file.read_bytes()
        return gzip.decompress(body) if file.suffix == ".gz" else body
    except OSError as error:
        _say(f"{file}: {error.strerror or 'not gzip'}")
        return None


def _mapped(chosen: argparse.Namespace) -> int:
    body = _bytes(chosen.file)
    if body is None:
        return 2
    try:
        maps = load.maps(chosen.set, chosen.prefix, chosen.maps, chosen.enable)
        data = exact_json.decode(body)
        tables = asyncio.run(_tables_of(maps.entities)) if chosen.check else {}
    except (exact_json.Malformed, Misconfigured, Unavailable) as error:
        _say(f"{chosen.file.name}: {error}")
        return 2
    for problem in maps.broken.values():
        _say(f"broken: {problem}")
    wrong = [
        each for entity in maps.entities.values() if tables for each in misfits(entity, tables)
    ]
    for each in wrong:
        _say(f"misfit: {each}")
    resources = [each for each in _resources(data) if each.get("resourceType") in maps.entities]
    if wrong or not resources:
        _say(f"{chosen.file.name}: no resource was mapped")
        return 2
    noted = [_row(maps.entities[each["resourceType"]], each, tables, chosen) for each in resources]
    return 1 if maps.broken or any(noted) else 0


def _row(
    entity: EntityMap, resource: Mapping[str, Any], tables: Tables, chosen: argparse.Namespace
) -> bool:
    """Whether anything was noted."""
    try:
        mapped = engine.apply(entity, resource, tables or explain.assumed(entity), chosen.base)
    except Unmappable as problem:
        _say(f"refused: {entity.resource}: {problem}")
        return True
    for line in explain.explained(entity, mapped, empty=chosen.empty):
        _say(line)
    return bool(mapped.notes)


def _resources(data: Any) -> list[dict[str, Any]]:
    entries = data.get("entry", []) if isinstance(data, dict) else []
    found = [each.get("resource") for each in entries if isinstance(each, dict)] or [data]
    # One that is created gets its id on the way.
    return [{"id": "not-yet", **each} for each in found if isinstance(each, dict)]


async def _tables_of(entities: Mapping[str, EntityMap]) -> Tables:
    """As the organisation of the settings has them."""
    from integration import wiring  # with all it imports, which the other commands do without

    try:
        dataverse = (await wiring.parts()).dataverse
        names = {name for entity in entities.values() for name in entity.tables}
        return {name: await dataverse.columns(name) for name in sorted(names)}
    finally:
        await wiring.closed()


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


async def _tenant(named: Later) -> Toolkit:
    from integration import wiring  # with all it imports, which the other commands do without

    try:
        dataverse = (await wiring.parts()).dataverse

        async def send(request: Request) -> Response:
            return await dataverse.send(request, "toolkit")

        there = Organisation(send, dataverse.neighbour.base, API)
        return await toolkit_client.toolkit(there, named)
    finally:
        await wiring.closed()


def _reconciled(chosen: argparse.Namespace) -> int:
    try:
        return asyncio.run(reconcile_command.run(chosen, _reconcile, _say))
    except KeyboardInterrupt:  # which has been told
        return 2


@asynccontextmanager
async def _reconcile(dry: bool) -> AsyncIterator[Reconcile]:
    """What the app mirrors, with all its parts; what it does is listed as a delivery's."""
    from integration import wiring  # with all it imports, which the other commands do without

    try:
        parts = await wiring.parts()
        if not parts.events.mirrored:
            raise Misconfigured("nothing is mirrored: MIRROR_TO is off, or no map is in use")
        now = parts.now()
        run = parts.intake.new_id(now)
        if not dry:
            await occasions.note(parts.journal, run, "reconcile", now, now)
        async with parts.mirror.activities.verb(delivery=run):
            yield Reconcile(parts.mirror, parts.fhir, parts.dataverse, run, asyncio.sleep, dry)
    finally:
        await wiring.closed()


def _refuses(told: Mapping[str, Any]) -> bool:
    return any(issue["severity"] == "error" for issue in told["refused"])


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
