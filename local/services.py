"""The other parts for a laptop, as child processes on loopback: storage, FHIR, Dataverse, host."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import count, islice
from pathlib import Path

from local.host.emulator import build_connection_string
from local.host.settings import CannotStart
from local.processes import PROJECT, Child, Part

ADDRESS = "127.0.0.1"
PARTS = ("storage", "fhir", "dataverse")

_AZURITE = PROJECT / "local/node_modules/azurite/dist/src/azurite.js"
_CLOCK = PROJECT / "local/clock.cjs"
_FHIR = PROJECT / "local/fhir/server.mjs"

# Ports for services of tests: up to 32,400. Linux takes those from 32,768 on for connections.
_FIRST_PORT, _BLOCK, _BLOCKS = 10_000, 64, 350
_port_numbers = count()


@dataclass(frozen=True, slots=True)
class Ports:
    blob: int = 10000
    queue: int = 10001
    table: int = 10002
    fhir: int = 8080
    dataverse: int = 8090
    host: int = 7071


VARIABLES = {
    "blob": "AZURITE_BLOB_PORT",
    "queue": "AZURITE_QUEUE_PORT",
    "table": "AZURITE_TABLE_PORT",
    "fhir": "FHIR_PORT",
    "dataverse": "DATAVERSE_PORT",
    "host": "HOST_PORT",
}
_USES = {"storage": ("blob", "queue", "table"), "fhir": ("fhir",), "dataverse": ("dataverse",)}


@dataclass(frozen=True, slots=True)
class Running:
    """What runs, each part restartable: `running.parts["fhir"].kill()`, then `.start()`."""

    ports: Ports
    parts: Mapping[str, Child] = field(default_factory=dict)

    @property
    def storage(self) -> str:
        return build_connection_string(self.ports.blob, self.ports.queue, self.ports.table)

    @property
    def fhir_url(self) -> str:
        given = os.environ.get("FHIR_URL", "").rstrip("/")
        return given or f"http://{ADDRESS}:{self.ports.fhir}/fhir"

    @property
    def dataverse_url(self) -> str:
        return f"http://{ADDRESS}:{self.ports.dataverse}"

    def settings(self) -> dict[str, str]:
        """The app settings that point at these neighbours."""
        scope = os.environ.get("FHIR_SCOPE", "none") if os.environ.get("FHIR_URL") else "none"
        return {
            "AzureWebJobsStorage": self.storage,
            "FHIR_URL": self.fhir_url,
            "FHIR_SCOPE": scope,
            "DATAVERSE_URL": self.dataverse_url,
            "DATAVERSE_SCOPE": "none",
        }


@contextlib.contextmanager
def run_services(
    ports: Ports,
    folder: Path,
    *,
    parts: Collection[str] = PARTS,
    access_log: bool = False,
    storage_clock: float = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Running]:
    """Start the parts, all at hand when it yields; end them whatever happens.

    Logs go to the folder; nothing else outlives the block. With `access_log`, storage.log holds
    a line for each request. The clock of storage is `storage_clock` seconds ahead. With FHIR_URL
    set, that server is used, no local one started.
    """
    wanted = [p for p in PARTS if p in parts and not (p == "fhir" and os.environ.get("FHIR_URL"))]
    check_ports(ports, [use for part in wanted for use in _USES[part]])
    built = {p: Child(_part(p, ports, folder, access_log, storage_clock)) for p in wanted}
    running = Running(ports, built)
    with contextlib.ExitStack() as stack:
        begun = time.monotonic()
        for child in running.parts.values():
            stack.callback(child.stop)
            child.launch()
        for child in running.parts.values():
            child.wait()
            tell(f"{child.part.name} is ready after {time.monotonic() - begun:.1f} s")
        yield running


def start_host(settings: Mapping[str, str], port: int, folder: Path, app: Path = PROJECT) -> Child:
    """Run function_app.py of the folder `app`; `with` ends it, as do stop() and kill()."""
    check_ports(Ports(host=port), ["host"])
    wanted = {**os.environ, **settings}.get("HOST_USE_FUNC") != "0"
    tools = shutil.which("func") if wanted else None
    base = f"http://{ADDRESS}:{port}"
    if tools:
        command = [tools, "start", "--port", str(port)]
        ready, where = f"{base}/admin/host/status", app
        # Core Tools looks for a Python of its own unless told which.
        of_core_tools = {
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "languageWorkers__python__defaultExecutablePath": sys.executable,
        }
    else:
        command = [sys.executable, "-m", "local.host", "--app", str(app), "--port", str(port)]
        ready, where, of_core_tools = f"{base}/admin/host/ping", PROJECT, {}
    part = Part(
        name="host",
        command=tuple(command),
        env={**of_core_tools, **settings},
        ready=(ready,),
        log=folder / "host.log",
        folder=where,
    )
    child = Child(part)
    child.start()
    return child


def read_ports(env: Mapping[str, str] = os.environ) -> Ports:
    given = {name: env[variable] for name, variable in VARIABLES.items() if env.get(variable)}
    if wrong := [VARIABLES[name] for name, value in given.items() if not value.isdecimal()]:
        raise CannotStart(f"set {', '.join(wrong)} to a port number")
    return Ports(**{name: int(value) for name, value in given.items()})


def find_free_ports() -> Ports:
    """Return ports that nothing listens on now, for services of one's own.

    The system would give the same ones to two processes that ask at the same time, and one would
    talk to the services of the other. So each process takes them out of a block of its own, below
    those that the system gives to connections.
    """
    first = _FIRST_PORT + os.getpid() % _BLOCKS * _BLOCK
    numbers = (first + number % _BLOCK for number in _port_numbers)
    found = list(islice(filter(is_free, islice(numbers, 2 * _BLOCK)), len(fields(Ports))))
    if len(found) < len(fields(Ports)):
        raise CannotStart(f"no {len(fields(Ports))} ports are free from {first} on")
    return Ports(*found)


def check_ports(ports: Ports, names: Collection[str]) -> None:
    """Raises CannotStart naming each port that is taken, and the variable that changes it."""
    taken = [name for name in names if not is_free(getattr(ports, name))]
    if taken:
        text = "; ".join(
            f"{name} port {getattr(ports, name)} is taken: set {VARIABLES[name]}" for name in taken
        )
        raise CannotStart(text)


def _part(name: str, ports: Ports, folder: Path, access_log: bool, storage_clock: float) -> Part:
    log = folder / f"{name}.log"
    if name == "storage":
        options = _azurite_options(ports)
        options += [] if access_log else ["--silent"]
        command = (_node(_AZURITE), "--require", str(_CLOCK), str(_AZURITE), *options)
        ready = tuple(f"http://{ADDRESS}:{p}/" for p in (ports.blob, ports.queue, ports.table))
        return Part(name, command, {"CLOCK_OFFSET": str(storage_clock)}, ready, log)
    if name == "fhir":
        ready = (f"http://{ADDRESS}:{ports.fhir}/health",)
        env = {"FHIR_PORT": str(ports.fhir)}
        return Part(name, (_node(_FHIR), str(_FHIR)), env, ready, log)
    ready = (f"http://{ADDRESS}:{ports.dataverse}/api/data/v9.2/WhoAmI",)
    env = {"DATAVERSE_PORT": str(ports.dataverse)}
    return Part(name, (sys.executable, "-m", "local.dataverse"), env, ready, log)


def _azurite_options(ports: Ports) -> list[str]:
    options = ["--skipApiVersionCheck", "--disableTelemetry"]
    for name, port in (("blob", ports.blob), ("queue", ports.queue), ("table", ports.table)):
        options += [f"--{name}Host", ADDRESS, f"--{name}Port", str(port)]
    return [*options, "--inMemoryPersistence"]


def _node(script: Path) -> str:
    node = shutil.which("node")
    if node is None:
        raise CannotStart("node is not on the PATH: install Node.js 20.19 or later")
    if not script.is_file():
        raise CannotStart(f"{script} is missing: run `npm ci --prefix local`")
    return node


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        # As the servers do: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True
