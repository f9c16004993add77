"""`python -m integration status`: what GET /api/status tells, read from storage alone.

So it also answers when the app does not. What only a worker knows, it cannot tell: the last check
of the upstreams, and which secrets of senders are set in Azure.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

import msgspec

from integration.app.operations_parts import build_status_check
from integration.app.package_documents import parse_configured_senders, read_package_documents
from integration.app.settings import read_settings
from integration.cli.status_table import find_concerns, render_status
from integration.cli.terminal import PrintLine
from integration.core.errors import IntegrationError, Unavailable
from integration.journal.live_configuration import Document, LiveConfiguration
from integration.operations.status import StatusReport, report_status
from integration.operations.status_views import describe_status

_FROM_STORAGE = (
    *("time", "queues", "deliveries", "senders", "upstreams", "housekeeping"),
    "refused",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--json", action="store_true", help="print it as JSON, as GET /api/status has it"
    )


def run(chosen: argparse.Namespace, print_line: PrintLine) -> int:
    """Return 0 if there is nothing to look at, 1 if there is, 2 if nothing can be read."""
    try:
        report = asyncio.run(_read_report())
    except IntegrationError as error:
        print_line(str(error))
        return 2
    if chosen.json:
        described = describe_status(report)
        print_line(msgspec.json.encode({name: described[name] for name in _FROM_STORAGE}).decode())
    else:
        for line in render_status(report):
            print_line(line)
    return 1 if find_concerns(report) else 0


async def _read_documents(live: LiveConfiguration) -> Mapping[str, Document]:
    """Return the documents in use. While the storage does not answer, return the package's: then
    nothing of the status can be read either, which the report tells."""
    try:
        return (await live.get()).documents
    except Unavailable:
        return live.package


async def _read_report() -> StatusReport:
    # Their SDKs are slow to import.
    from integration.app import services, storage_clients
    from integration.journal.azure_configuration import build_configuration_store

    settings = read_settings()
    async with AsyncExitStack() as exit_stack:
        credential = services.build_credential(settings, exit_stack)
        clients = storage_clients.open_clients(settings.storage, credential, exit_stack)
        live = LiveConfiguration(
            store=build_configuration_store(clients.blobs, clients.tables),
            package=read_package_documents(settings),
        )
        senders = parse_configured_senders(await _read_documents(live))
        return await report_status(
            build_status_check(
                storage_clients.build_status_stores(clients),
                senders or {},
                now=services.utc_now,
            )
        )
