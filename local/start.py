"""`python -m local.start`: run all services on this laptop until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType

from integration.cli.local_settings import FILE as SETTINGS
from local.host.settings import CannotStart
from local.inbox_poller import start_poller
from local.processes import PROJECT, Child
from local.provisioning import choose_settings, finish_provisioning, launch_provisioning
from local.services import ADDRESS, Running, read_ports, run_services, start_host
from local.settings_file import collect_settings, keep_settings_file
from local.storage_setup import create_storage

FOLDER = PROJECT / ".local"
EXAMPLE = '{"resourceType": "Patient", "name": [{"family": "Sample", "given": ["Anna"]}]}'


def main() -> int:
    end_by_signals()
    SETTINGS.unlink(missing_ok=True)  # an earlier run may have been killed
    try:
        with run_route({}) as (running, host):
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


def end_by_signals() -> None:
    """Have whatever ends this process end it as Ctrl-C does, with all that it has started."""
    for name in ("SIGTERM", "SIGHUP"):  # SIGHUP: the terminal was closed
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)


@contextmanager
def run_route(settings: Mapping[str, str]) -> Iterator[tuple[Running, Child]]:
    """Run all services and the host with these settings besides those of a laptop; end them
    whatever happens. Raises CannotStart."""
    with ExitStack() as stack:
        ports = read_ports()
        _print(f"starting; logs are in {FOLDER}")
        running = stack.enter_context(run_services(ports, FOLDER, tell=_print))
        chosen = {**_choose_settings(running), **settings}
        provisioning = stack.enter_context(launch_provisioning(chosen, FOLDER))
        asyncio.run(create_storage(running))
        host = stack.enter_context(start_host(chosen, ports.host, FOLDER))
        if inbox := collect_settings(chosen, os.environ)["INBOX"]:
            stack.enter_context(start_poller({**chosen, "INBOX": inbox}, FOLDER))
        _print("host is ready; Dataverse is being provisioned")
        finish_provisioning(provisioning)
        stack.enter_context(keep_settings_file(SETTINGS, chosen))
        yield running, host


def _choose_settings(running: Running) -> dict[str, str]:
    feed_url = f"http://{ADDRESS}:{running.ports.host}/api/odata/"
    collected = collect_settings(running.settings(), os.environ)
    keys = os.environ.get("HOST_FUNCTION_KEYS", "")
    # Whoever reaches the pages of a laptop is at this laptop.
    pages = {"PAGES_SIGN_IN": "off"}
    return {**running.settings(), **pages, **choose_settings(collected, feed_url, keys)}


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
    _print(f"  pages      {host.url}/api/pages/")
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
    _print("commands with --local use what runs here, for example in another terminal:")
    _print("  .venv/bin/python -m integration check --local")
    _print("  .venv/bin/python -m integration status --local")
    _print("  .venv/bin/python -m integration reconcile --local --dry-run")
    _print("Dataverse is provisioned: it has the virtual tables, and every check passes\n")
    _print("press Ctrl-C to stop everything")


def _print(text: str) -> None:
    print(text, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
