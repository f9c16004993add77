"""`python -m local.host [--app FOLDER] [--port PORT]`"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from local.host import kill, log
from local.host.app import run
from local.host.functions import Function, load_functions
from local.host.settings import CannotStart, HostOptions, read_local_settings, read_options


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local.host", description=__doc__)
    parser.add_argument("--app", type=Path, default=Path.cwd(), help="the folder it is in")
    parser.add_argument("--port", type=int, default=os.environ.get("HOST_PORT", "7071"))
    arguments = parser.parse_args()
    folder = arguments.app.resolve()
    folder = folder.parent if folder.is_file() else folder
    try:
        read_local_settings(folder, os.environ)
        log.configure_logging(os.environ.get("HOST_LOG_LEVEL", "INFO"))
        options = read_options(folder, os.environ)
        functions = load_functions(folder)
        return kill.run_until_not_killed(
            os.environ, lambda: _serve(functions, options, arguments.port)
        )
    except CannotStart as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1


def _serve(functions: Sequence[Function], options: HostOptions, port: int) -> int:
    threads_ended = asyncio.run(run(functions, options, port))
    # An app has no hook to close its clients; Azure ends the worker in the same way.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if not threads_ended:
        # Python would wait for the threads, and a function that hangs would hang the host.
        logging.shutdown()
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
