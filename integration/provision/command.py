"""`python -m integration provision`: add to Dataverse what the relay needs there."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from getpass import getpass

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

# Paths of requests that change a definition. The change is visible only once it is published.
_DEFINING = ("EntityDefinitions", "RelationshipDefinitions")

_WORDS: Mapping[type[Item], str] = {
    Existing: "exists",
    ManualTask: "to do",
    Unsupported: "left out",
}

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
_FEED_ADDRESS = re.compile(r"https://\S+|http://(127\.0\.0\.1|localhost)[:/]\S+")

# Prints one line on the terminal.
PrintLine = Callable[[str], object]

# Asks the person at the terminal for a secret.
Prompt = Callable[[str], str]

OpenDataverse = Callable[[], AbstractAsyncContextManager[Dataverse]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options. Which maps are in use, the settings say."""
    parser.add_argument(
        "--dry-run", action="store_true", help="print every request that would change something"
    )
    parser.add_argument("--feed", help="the address of the app's /api/odata/ (FEED_URL)")
    parser.add_argument(
        "--paging",
        choices=("server", "client"),
        default="server",
        help="the paging mode of the data source (by default server)",
    )
    parser.add_argument("--identity", help="the client id of the app's identity (AZURE_CLIENT_ID)")
    parser.add_argument(
        "--business-unit", metavar="NAME", help="of the app's user and role; by default the root"
    )
    parser.add_argument(
        "--solution",
        metavar="NAME",
        default=_SOLUTION,
        help=f"the unique name of the solution for what is added (by default {_SOLUTION})",
    )
    parser.add_argument(
        "--mirrored",
        action="append",
        default=[],
        metavar="TYPE",
        help="a resource type to mirror although its table is virtual by default; may be repeated",
    )
    parser.add_argument(
        "--physical",
        action="append",
        default=[],
        metavar="TYPE",
        help="a resource type whose rows get a table of yours, where Dataverse has none of "
        "Microsoft's; may be repeated",
    )
    parser.add_argument(
        "--keys", action="store_true", help="also add alternate keys on Microsoft's columns"
    )


@asynccontextmanager
async def open_dataverse() -> AsyncIterator[Dataverse]:
    """Connect to the organisation of the settings. Raises Misconfigured."""
    from integration.app import wiring  # slow to import

    async with wiring.open_dataverse() as dataverse:
        yield dataverse


def run(
    chosen: argparse.Namespace,
    print_line: PrintLine,
    open_dataverse: OpenDataverse = open_dataverse,
    prompt: Prompt = getpass,
) -> int:
    """Return 0 if everything is there, 1 if a person has something to do, 2 if the run failed."""
    try:
        settings = read_provision_settings()
        requirements = _read_requirements(
            chosen, chosen.feed or settings.feed_url, chosen.identity or settings.client_id
        )
        key = settings.feed_key
        if key is None and requirements.feed is not None and not chosen.dry_run:
            key = prompt("A function key of the app, for the feed (not shown): ").strip() or None
        counts = asyncio.run(
            _provision(requirements, key, open_dataverse, print_line, dry_run=chosen.dry_run)
        )
    except IntegrationError as error:
        print_line(f"stopped: {error}")
        return 2
    made = "would-make" if chosen.dry_run else "made"
    print_line(
        f"provision: {made}={counts['made']} exists={counts['exists']} to-do={counts['to do']}"
    )
    return 1 if counts["to do"] else 0


def _read_requirements(
    chosen: argparse.Namespace, address: str | None, identity: str | None
) -> Requirements:
    if address is not None and not _FEED_ADDRESS.fullmatch(address):
        raise Misconfigured("the feed's address (FEED_URL or --feed) must start with https://")
    if identity is not None and not _GUID.fullmatch(identity):
        raise Misconfigured(
            "the client id of the app's identity (AZURE_CLIENT_ID or --identity) must be a GUID"
        )
    return load.build_requirements(
        read_mirror_settings(),
        feed=None if address is None else Feed(f"{address.rstrip('/')}/", chosen.paging),
        solution=chosen.solution,
        identity=identity,
        business_unit=chosen.business_unit,
        keys=chosen.keys,
        also_mirrored=tuple(chosen.mirrored),
        physical=tuple(chosen.physical),
    )


async def _provision(
    requirements: Requirements,
    key: str | None,
    open_dataverse: OpenDataverse,
    print_line: PrintLine,
    *,
    dry_run: bool,
) -> Counter[str]:
    """Send the steps, or print them in a dry run. Return how many items of each kind there were."""
    counts = Counter[str]()
    async with open_dataverse() as dataverse:

        async def send_request(request: Request) -> Response:
            return await dataverse.send(request, "provision")

        tenant = Tenant(send_request, dataverse.upstream.base, key)
        has_changed_definitions = False
        refused = set[str]()  # kinds of trials

        async def handle(item: Item) -> None:
            nonlocal has_changed_definitions
            if isinstance(item, Step) and item.trial in refused:
                item = Unsupported(f"{item.description}: {item.trial} were refused")
            if not isinstance(item, Step):
                word = _WORDS[type(item)]
                counts[word] += 1
                print_line(f"{word}:  {item.description}")
                return
            if dry_run:
                _print_step(item, tenant, print_line)
            else:
                try:
                    await tenant.send(item)
                except client.Refused as error:
                    if item.trial is None:
                        raise
                    refused.add(item.trial)
                    print_line(f"{_WORDS[Unsupported]}:  {error}")
                    return
                print_line(f"made:  {item.description}")
            counts["made"] += 1
            has_changed_definitions |= item.path.startswith(_DEFINING)

        if requirements.feed is None:
            await handle(
                ManualTask(
                    "virtual tables were not added: set FEED_URL or give --feed, and use maps "
                    "that have them"
                )
            )
        async for items in client.plan_stages(tenant, requirements):
            for item in items:
                await handle(item)
        changed = requirements.changed_tables if has_changed_definitions else ()
        for item in records.plan_publication(changed):
            await handle(item)
    return counts


def _print_step(step: Step, tenant: Tenant, print_line: PrintLine) -> None:
    """Print the request of a step. Its body has a placeholder in place of the feed's key."""
    would = "would try" if step.trial else "would make"
    print_line(f"{would}:  {step.description}")
    print_line(f"  {step.method} {tenant.base}/{API}/{step.path}")
    if step.solution is not None:
        print_line(f"  MSCRM.SolutionUniqueName: {step.solution}")
    for line in json.dumps(step.body, indent=2, ensure_ascii=False).splitlines():
        print_line(f"  {line}")
