"""What all commands write on the terminal, and the clients that some of them open."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from integration.core.errors import Misconfigured

if TYPE_CHECKING:
    from integration.dataverse.client import Dataverse

# Writes one line.
PrintLine = Callable[[str], object]


def print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def read_file(file: Path) -> bytes:
    """Return the bytes of a file, decompressed if its name ends with .gz.

    Raises Misconfigured if it cannot be read.
    """
    try:
        body = file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}") from None
    if file.suffix != ".gz":
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        raise Misconfigured(f"{file}: the name ends with .gz, but the file is not gzip") from None


@asynccontextmanager
async def open_dataverse() -> AsyncIterator[Dataverse]:
    """Connect to the organisation of the settings. Raises Misconfigured."""
    from integration.app import wiring  # slow to import, and most commands do without

    async with wiring.open_dataverse() as dataverse:
        yield dataverse
