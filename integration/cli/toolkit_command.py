"""`python -m integration toolkit SOURCE --to FOLDER`: convert an organisation's toolkit maps."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from integration.cli.terminal import PrintLine, open_dataverse
from integration.core.errors import IntegrationError
from integration.core.model import Request, Response
from integration.dataverse.requests import API
from integration.mapping.toolkit import client, load
from integration.mapping.toolkit.client import Organisation
from integration.mapping.toolkit.convert import convert
from integration.mapping.toolkit.findings import as_text
from integration.mapping.toolkit.rows import (
    NewerColumns,
    Toolkit,
    parse_newer_columns,
    read_toolkit,
)

# Reads the toolkit's rows from the organisation of the settings.
FetchToolkit = Callable[[NewerColumns], Coroutine[Any, Any, Toolkit]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "source", type=Path, nargs="?", help="exported rows: a JSON file, or a folder of them"
    )
    where.add_argument(
        "--tenant", action="store_true", help="read the rows from DATAVERSE_URL instead"
    )
    parser.add_argument(
        "--to", type=Path, required=True, help="the folder to write the maps and a report into"
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="WHICH=NAME",
        help="the logical name of a column that Microsoft does not publish; WHICH is expand, "
        "parent_link, expansion_map or matching",
    )


async def fetch_toolkit(newer_columns: NewerColumns) -> Toolkit:
    """Read the toolkit's rows from the organisation of the settings. Raises Misconfigured."""
    async with open_dataverse() as dataverse:

        async def send(request: Request) -> Response:
            return await dataverse.send(request, "toolkit")

        organisation = Organisation(send, dataverse.upstream.base, API)
        return await client.fetch_toolkit(organisation, newer_columns)


def run(
    chosen: argparse.Namespace, print_line: PrintLine, fetch_toolkit: FetchToolkit = fetch_toolkit
) -> int:
    """Return 0 if every map in use was converted, 1 if some were not, 2 if none was."""
    try:
        newer_columns = parse_newer_columns(chosen.column)
        if chosen.tenant:
            toolkit = asyncio.run(fetch_toolkit(newer_columns))
        else:
            toolkit = read_toolkit(load.read_rows(chosen.source), newer_columns)
        conversion = convert(toolkit)
        load.write(conversion, chosen.to)
    except IntegrationError as error:
        print_line(str(error))
        return 2
    for line in as_text(conversion):
        print_line(line)
    if not conversion.files:
        return 2
    return 0 if conversion.is_complete else 1
