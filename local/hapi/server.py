"""HAPI's JPA server, the second real FHIR server: built with Maven, started with Java.

For the nightly run alone: nothing that users run needs Java.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from local.host.settings import CannotStart
from local.processes import PROJECT, Part

SOURCE = Path(__file__).parent
BUILD = PROJECT / ".local" / "hapi"
JAVA_VERSION = 17
# Names the server that this process has started, which tests may empty; FHIR_URL may be anybody's.
OWN_URL = "LOCAL_HAPI_URL"
FILES = ("pom.xml", "HapiServer.java")
BUILD_SECONDS = 900.0  # the first build downloads 300 MB
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
    missing = [name for name in ("java", "javac", "mvn") if shutil.which(name) is None]
    if missing:
        return (
            f"HAPI needs Java {JAVA_VERSION} and Maven: {', '.join(missing)} not found on the PATH"
        )
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < JAVA_VERSION:
        version = found[1] if found else "unknown"
        return f"HAPI needs Java {JAVA_VERSION} or later: this is version {version}"
    return None


def build_server(build: Path = BUILD) -> str:
    """Compile the launcher, and return the class path. A second call finds both below `build`.

    Raises CannotStart if Java or Maven is missing, or Maven fails.
    """
    if obstacle := find_obstacle():
        raise CannotStart(obstacle)
    digest, path = build / "digest", build / "classpath"
    wanted = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in FILES)).hexdigest()
    if not (digest.is_file() and digest.read_text() == wanted and _is_complete(path)):
        _run_maven("compile", "dependency:build-classpath", f"-Dmdep.outputFile={path}")
        digest.write_text(wanted)
    return f"{build / 'classes'}:{path.read_text().strip()}"


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


def _run_maven(*goals: str) -> None:
    command: Sequence[str] = ("mvn", "-q", "-B", "-f", str(SOURCE / "pom.xml"), *goals)
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CannotStart(f"Maven did not end in {BUILD_SECONDS:.0f} s") from None
    if ended.returncode:
        said = "\n".join((ended.stdout + ended.stderr).splitlines()[-20:])
        raise CannotStart(f"Maven could not build HAPI; it ends:\n{said}")


def _is_complete(classpath: Path) -> bool:
    """Whether the class path and each file that it names are there: Maven may have been emptied."""
    if not classpath.is_file():
        return False
    return all(Path(name).is_file() for name in classpath.read_text().strip().split(":"))
