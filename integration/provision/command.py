"""`python -m integration provision`: Dataverse gets what the relay needs of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from integration.app.settings import read_mirror_settings, read_provision_settings
from integration.core.errors import IntegrationError, Misconfigured
from integration.core.model import Request, Response
from integration.dataverse.client import Dataverse
from integration.dataverse.requests import API
from integration.provision import client, load, records
from integration.provision.client import Tenant
from integration.provision.model import (
    Existing,
    Feed,
    Item,
    ManualTask,
    Requirements,
    Step,
    Unsupported,
)

_SOLUTION = "FhirRelay"

# What changes a definition, and has to be published.
_DEFINING = ("EntityDefinitions", "RelationshipDefinitions")

_WORDS: Mapping[type[Item], str] = {Existing: "there", ManualTask: "look", Unsupported: "left out"}

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
_FEED_ADDRESS = re.compile(r"https://\S+|http://(127\.0\.0\.1|localhost)[:/]\S+")

Say = Callable[[str], object]
OpenDataverse = Callable[[], AbstractAsyncContextManager[Dataverse]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes. What the maps are the settings say."""
    parser.add_argument("--dry-run", action="store_true", help="print every request, send none")
    parser.add_argument("--feed", help="the address of /api/odata/, instead of FEED_URL")
    parser.add_argument(
        "--paging", choices=("server", "client"), default="server", help="of the data source"
    )
    parser.add_argument("--identity", help="client id of the app's, instead of AZURE_CLIENT_ID")
    parser.add_argument("--business-unit", help="by name; else the root one")
    parser.add_argument("--solution", default=_SOLUTION, help="its unique name")
    parser.add_argument(
        "--mirrored",
        action="append",
        default=[],
        metavar="TYPE",
        help="a resource type that is mirrored, though its table is virtual by default",
    )
    parser.add_argument(
        "--keys", action="store_true", help="alternate keys on Microsoft's columns, too"
    )


def run(
    chosen: argparse.Namespace,
    open_dataverse: OpenDataverse,
    prompt: Callable[[str], str],
    say: Say,
) -> int:
    """0 when everything is there, 1 when a person has to look at something, 2 when it ended."""
    try:
        settings = read_provision_settings()
        requirements = _read_requirements(
            chosen, chosen.feed or settings.feed_url, chosen.identity or settings.client_id
        )
        key = settings.feed_key
        if key is None and requirements.feed is not None and not chosen.dry_run:
            key = prompt("a function key of the app, for the feed: ").strip() or None
        counts = asyncio.run(_provision(requirements, key, open_dataverse, say, dry=chosen.dry_run))
    except IntegrationError as error:
        say(f"ended: {error}")
        return 2
    made = "would-make" if chosen.dry_run else "made"
    summary = f"{made}={counts['step']} there={counts['there']} look={counts['look']}"
    say(f"provision: {summary}")
    return 1 if counts["look"] else 0


def _read_requirements(
    chosen: argparse.Namespace, address: str | None, identity: str | None
) -> Requirements:
    if address is not None and not _FEED_ADDRESS.fullmatch(address):
        raise Misconfigured("the feed's address must start with https://")
    if identity is not None and not _GUID.fullmatch(identity):
        raise Misconfigured("the client id of the app's identity is a GUID")
    feed = None if address is None else Feed(f"{address.rstrip('/')}/", chosen.paging)
    unit = chosen.business_unit
    used = read_mirror_settings()
    more = {"keys": chosen.keys, "also": tuple(chosen.mirrored)}
    return load.build_requirements(used, feed, chosen.solution, identity, unit, **more)


async def _provision(
    requirements: Requirements,
    key: str | None,
    open_dataverse: OpenDataverse,
    say: Say,
    *,
    dry: bool,
) -> Counter[str]:
    counts = Counter[str]()
    async with open_dataverse() as dataverse:

        async def send_request(request: Request) -> Response:
            return await dataverse.send(request, "provision")

        tenant = Tenant(send_request, dataverse.upstream.base, key)
        defined = False

        async def handle(item: Item) -> None:
            nonlocal defined
            if isinstance(item, Step):
                counts["step"] += 1
                defined |= item.path.startswith(_DEFINING)
                if dry:
                    _print_step(item, tenant, say)
                else:
                    await tenant.send(item)
                    say(f"made:  {item.description}")
            else:
                word = _WORDS[type(item)]
                counts[word] += 1
                say(f"{word}:  {item.description}")

        if requirements.feed is None:
            await handle(
                ManualTask("no virtual tables: set FEED_URL, or say --feed, and have maps of them")
            )
        async for items in client.plan_stages(tenant, requirements):
            for item in items:
                await handle(item)
        for item in records.plan_publication(requirements.changed_tables if defined else ()):
            await handle(item)
    return counts


def _print_step(step: Step, tenant: Tenant, say: Say) -> None:
    """The key is not in a step, so it cannot be printed."""
    say(f"would make:  {step.description}")
    say(f"  {step.method} {tenant.base}/{API}/{step.path}")
    if step.solution is not None:
        say(f"  MSCRM.SolutionUniqueName: {step.solution}")
    for line in json.dumps(step.body, indent=2, ensure_ascii=False).splitlines():
        say(f"  {line}")
