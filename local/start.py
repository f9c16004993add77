"""`python -m local.start`: run all services on this laptop until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack
from types import FrameType

from local.host.settings import CannotStart
from local.processes import PROJECT, Child
from local.services import Running, neighbours, ports_from_env, start_host

FOLDER = PROJECT / ".local"
EXAMPLE = '{"resourceType": "Patient", "name": [{"family": "Sample", "given": ["Anna"]}]}'


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            ports = ports_from_env()
            _print(f"starting; logs are in {FOLDER}")
            running = stack.enter_context(neighbours(ports, FOLDER, tell=_print))
            host = stack.enter_context(start_host(running.settings(), ports.host, FOLDER))
            _print_addresses(running, host)
            ended = _wait_for_end([*running.parts.values(), host])
            _print(f"{ended.part.name} stopped; {ended.part.log} ends with:\n{ended.last_lines()}")
            return 1
    except KeyboardInterrupt:
        _print("stopped")
        return 0
    except CannotStart as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1


def _wait_for_end(children: list[Child]) -> Child:
    """Wait until one of the processes ends by itself, and return it."""
    while True:
        for child in children:
            if not child.running:
                return child
        time.sleep(0.5)


def _print_addresses(running: Running, host: Child) -> None:
    ports = running.ports
    _print("ready\n")
    _print(f"  functions  {host.url}/api")
    _print(f"  OData feed {host.url}/api/odata/")
    _print(f"  FHIR       {running.fhir_url}")
    _print(f"  Dataverse  {running.dataverse_url}/api/data/v9.2")
    _print(f"  storage    blob {ports.blob}, queue {ports.queue}, table {ports.table} (Azurite)")
    _print(f"  log        tail -f {host.part.log}\n")
    if os.environ.get("HOST_FUNCTION_KEYS"):
        _print("  add -H 'x-functions-key: KEY' to the request, with a key of HOST_FUNCTION_KEYS")
    _print(f"  curl -i -H 'content-type: application/fhir+json' \\\n    -d '{EXAMPLE}' \\")
    _print(f"    {host.url}/api/fhir/Patient\n")
    _print("press Ctrl-C to stop")


def _print(text: str) -> None:
    print(text, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
