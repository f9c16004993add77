"""`python -m integration toolkit SOURCE --to FOLDER`: an organisation's maps, made ours."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from integration.core.errors import IntegrationError
from integration.mapping.toolkit import load
from integration.mapping.toolkit.convert import convert
from integration.mapping.toolkit.findings import as_text
from integration.mapping.toolkit.rows import (
    NewerColumns,
    Toolkit,
    parse_newer_columns,
    read_toolkit,
)

# Reads the rows of the organisation that the settings name.
FetchToolkit = Callable[[NewerColumns], Coroutine[Any, Any, Toolkit]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("source", type=Path, nargs="?", help="a JSON file of rows, or a folder")
    where.add_argument("--tenant", action="store_true", help="read them from DATAVERSE_URL")
    parser.add_argument("--to", type=Path, required=True, help="the folder for our maps")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="WHICH=NAME",
        help="the logical name of a column that is not published: expand, parent_link, "
        "expansion_map, matching",
    )


def run(
    chosen: argparse.Namespace, fetch_toolkit: FetchToolkit, say: Callable[[str], object]
) -> int:
    """0 when every map in use was carried over, 1 when some were not, 2 when nothing was."""
    try:
        named = parse_newer_columns(chosen.column)
        if chosen.tenant:
            toolkit = asyncio.run(fetch_toolkit(named))
        else:
            toolkit = read_toolkit(load.read_rows(chosen.source), named)
        converted = convert(toolkit)
        load.write(converted, chosen.to)
    except IntegrationError as error:
        say(str(error))
        return 2
    for line in as_text(converted):
        say(line)
    if not converted.files:
        return 2
    return 0 if converted.is_complete else 1
