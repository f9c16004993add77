"""The app as it would be published: the files that .funcignore leaves, and the packages beside them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pathspec import GitIgnoreSpec

PROJECT = Path(__file__).parents[2]
REQUIREMENTS = PROJECT / "requirements.txt"

# Where a build on Linux puts them: https://learn.microsoft.com/azure/azure-functions/functions-reference-python
PACKAGES = ".python_packages/lib/site-packages"


@cache
def published() -> list[Path]:
    """What `func azure functionapp publish` takes along, relative to the project."""
    ignored = GitIgnoreSpec.from_lines((PROJECT / ".funcignore").read_text("utf-8").splitlines())
    found = []
    for folder, folders, files in os.walk(PROJECT):
        here = Path(folder).relative_to(PROJECT)
        folders[:] = [name for name in folders if not ignored.match_file(f"{here / name}/")]
        found += [here / name for name in files if not ignored.match_file(here / name)]
    return sorted(found)


@pytest.fixture(scope="session")
def packages() -> Path:
    """The packages of requirements.txt, installed once for each state of that file."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    built = PROJECT / ".local" / f"packages-{digest}"
    if not built.is_dir():
        begun = built.with_suffix(".begun")
        shutil.rmtree(begun, ignore_errors=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
        install += ["--disable-pip-version-check", "--target", begun, "-r", REQUIREMENTS]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if "NewConnectionError" in done.stderr or "NameResolutionError" in done.stderr:
            pytest.skip("the packages of requirements.txt cannot be had: no network")
        assert done.returncode == 0, done.stderr
        begun.rename(built)
    return built


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[Path]:
    """A folder with all of it."""
    root = tmp_path_factory.mktemp("wwwroot")
    for file in published():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / file, root / file)
    (root / PACKAGES).parent.mkdir(parents=True)
    (root / PACKAGES).symlink_to(packages)
    yield root
    shutil.rmtree(root)
