"""`python -m local.dataverse`: serve the Dataverse stand-in on the loopback interface.

DATAVERSE_PORT (8090) is the port, DATAVERSE_DB a file for the rows (in memory by default).
DATAVERSE_COLUMNS is a file of the organization's custom columns, such as
integration/provision/custom/plain.json, and DATAVERSE_PREFIX (new) the publisher's prefix in it.
DATAVERSE_LIMITS=on throttles like Dataverse. DATAVERSE_CERTIFICATE and DATAVERSE_KEY, two PEM
files, switch TLS on.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from local.dataverse import tables
from local.dataverse.app import create_app
from local.dataverse.limits import Limits


class Breakable(H11Protocol):
    """Gives the app access to its connection, so that a fault can drop it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def _is_on(text: str) -> bool:
    if text not in ("on", "off"):
        raise SystemExit("DATAVERSE_LIMITS is on or off")
    return text == "on"


def main() -> None:
    env = os.environ
    columns, prefix = env.get("DATAVERSE_COLUMNS"), env.get("DATAVERSE_PREFIX", "new")
    app = create_app(
        env.get("DATAVERSE_DB", ":memory:"),
        additions=tables.read_additions(Path(columns), prefix) if columns else None,
        limits=Limits() if _is_on(env.get("DATAVERSE_LIMITS", "off")) else None,
    )
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(env.get("DATAVERSE_PORT", "8090")),
        ssl_certfile=env.get("DATAVERSE_CERTIFICATE"),
        ssl_keyfile=env.get("DATAVERSE_KEY"),
        http=Breakable,
        access_log=False,
        # longer than clients keep idle connections, so that none is closed under a request
        timeout_keep_alive=120,
    )


if __name__ == "__main__":
    main()
