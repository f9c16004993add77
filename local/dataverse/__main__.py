"""`python -m local.dataverse`: serve the stand-in on the loopback interface.

DATAVERSE_PORT (8090) is the port, DATAVERSE_DB (in memory) a file that keeps the rows.
"""

from __future__ import annotations

import asyncio
import os

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from local.dataverse.app import create_app


class Breakable(H11Protocol):
    """Lets the app reach its connection, so that a fault can drop it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def main() -> None:
    uvicorn.run(
        create_app(os.environ.get("DATAVERSE_DB", ":memory:")),
        host="127.0.0.1",
        port=int(os.environ.get("DATAVERSE_PORT", "8090")),
        http=Breakable,
        access_log=False,
    )


if __name__ == "__main__":
    main()
