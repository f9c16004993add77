"""Programs in Java that Maven builds, for the nightly run alone: users need no Java."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from local.host.settings import CannotStart

JAVA_VERSION = 17
BUILD_SECONDS = 900.0  # the first build downloads what the pom.xml names: 300 MB for HAPI


def find_obstacle(program: str) -> str | None:
    """Return why this machine cannot build and run the program; None if it can."""
    missing = [name for name in ("java", "javac", "mvn") if shutil.which(name) is None]
    if missing:
        names = ", ".join(missing)
        return f"{program} needs Java {JAVA_VERSION} and Maven: {names} not found on the PATH"
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < JAVA_VERSION:
        version = found[1] if found else "unknown"
        return f"{program} needs Java {JAVA_VERSION} or later: this is version {version}"
    return None


def build_program(program: str, source: Path, build: Path) -> str:
    """Compile the folder's classes, and return the class path. A second call finds both in `build`.

    `build` is the folder that the pom.xml of `source` names. Raises CannotStart if Java or Maven is
    missing, or Maven fails.
    """
    if obstacle := find_obstacle(program):
        raise CannotStart(obstacle)
    digest, path = build / "digest", build / "classpath"
    files = (source / "pom.xml", *sorted(source.glob("*.java")))
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if not (digest.is_file() and digest.read_text() == wanted and _is_complete(path)):
        goals = ("compile", "dependency:build-classpath", f"-Dmdep.outputFile={path}")
        _run_maven(program, source / "pom.xml", goals)
        digest.write_text(wanted)
    return f"{build / 'classes'}:{path.read_text().strip()}"


def _run_maven(program: str, pom: Path, goals: Sequence[str]) -> None:
    command: Sequence[str] = ("mvn", "-q", "-B", "-f", str(pom), *goals)
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CannotStart(f"Maven did not end in {BUILD_SECONDS:.0f} s") from None
    if ended.returncode:
        said = "\n".join((ended.stdout + ended.stderr).splitlines()[-20:])
        raise CannotStart(f"Maven could not build {program}; it ends:\n{said}")


def _is_complete(classpath: Path) -> bool:
    """Whether the class path and each file that it names are there: Maven may have been emptied."""
    if not classpath.is_file():
        return False
    return all(Path(name).is_file() for name in classpath.read_text().strip().split(":"))
