"""HAPI's JPA server, the second real FHIR server: built with Maven, started with Java.

For the nightly run alone: nothing that users run needs Java.
"""

from __future__ import annotations

from pathlib import Path

from local import maven
from local.processes import PROJECT, Part

SOURCE = Path(__file__).parent
BUILD = PROJECT / ".local" / "hapi"
# Names the server that this process has started, which tests may empty; FHIR_URL may be anybody's.
OWN_URL = "LOCAL_HAPI_URL"
PATIENCE = 240.0  # seconds until it has to answer: it takes 25 on two cores with nothing beside it

# One GB holds what the journeys write. The server lives for minutes: the first compiler is enough.
_OPTIONS = (
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


def find_obstacle() -> str | None:
    """Return why this machine cannot run HAPI; None if it can."""
    return maven.find_obstacle("HAPI")


def build_server(build: Path = BUILD) -> str:
    """Compile the launcher, and return the class path: see build_program."""
    return maven.build_program("HAPI", SOURCE, build)


def make_part(classpath: str, port: int, log: Path) -> Part:
    """Return how HAPI is started at this port of the loopback address. Each start is empty."""
    return Part(
        name="hapi",
        command=("java", *_OPTIONS, "-cp", classpath, "HapiServer"),
        env={"FHIR_PORT": str(port)},
        ready=(f"http://127.0.0.1:{port}/fhir/Patient?_summary=count",),
        log=log,
        patience=PATIENCE,
    )
