"""What is published to Azure is the app, whole, and nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pathspec import GitIgnoreSpec

from tests.package.conftest import PACKAGES, PROJECT, published

# Indexes as the worker does, without anything of this environment: no site-packages, no variables.
INDEX = """
import sys, time
root, packages = sys.argv[1:]
sys.path[:0] = [root, packages]
began = time.process_time()
import function_app
functions = [one.get_function_name() for one in function_app.app.get_functions()]
took = time.process_time() - began
loaded = [getattr(one, "__file__", None) or "" for one in sys.modules.values()]
import json
print(json.dumps({"functions": functions, "took": took, "loaded": loaded}))
"""


def declared() -> set[str]:
    tree = ast.parse((PROJECT / "function_app.py").read_text("utf-8"))
    return {one.name for one in tree.body if isinstance(one, ast.AsyncFunctionDef)}


def index(app: Path) -> dict:
    """A first time to compile, as a build does; a second one to measure."""
    run = [sys.executable, "-I", "-S", "-c", INDEX, app, app / PACKAGES]
    for _ in range(2):
        done = subprocess.run(run, capture_output=True, text=True, check=False, env={}, cwd=app)
        assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def size(*folders: Path) -> float:
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files if "__pycache__" not in file.parts) / 1e6


@pytest.mark.slow  # it installs every package once more
def test_the_package_indexes_every_function_with_its_own_packages_alone(app: Path) -> None:
    found = index(app)
    assert set(found["functions"]) == declared()
    strangers = [
        file
        for file in found["loaded"]
        if "site-packages" in file and not file.startswith(str(app))
    ]
    assert strangers == []
    print(  # noqa: T201
        f"\npackage: {size(app / 'integration'):.1f} MB of our own, "
        f"{size((app / PACKAGES).resolve()):.0f} MB of packages, "
        f"indexed in {found['took']:.2f} s of one core"
    )


def test_the_package_holds_all_of_the_app() -> None:
    ours = {
        file.relative_to(PROJECT)
        for file in (PROJECT / "integration").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".md"
    }
    assert ours <= set(published())


def test_the_package_holds_nothing_but_the_app() -> None:
    top = {file.parts[0] for file in published()}
    top.discard("senders.toml")  # who may send is each deployment's own file
    assert top == {"function_app.py", "host.json", "integration", "requirements.txt"}


def test_who_may_send_is_published_with_the_app_and_the_sample_is_not() -> None:
    ignored = GitIgnoreSpec.from_lines((PROJECT / ".funcignore").read_text("utf-8").splitlines())
    assert not ignored.match_file("senders.toml")
    assert (PROJECT / "senders.sample.toml").is_file()
    assert ignored.match_file("senders.sample.toml")


def test_the_package_holds_no_tests_stand_ins_samples_or_settings_of_a_laptop() -> None:
    names = [file.as_posix() for file in published()]
    unwanted = (
        "test",
        "local/",
        "local.settings",
        "sample",
        "bench",
        "settings.json",
        ".bicep",
        ".git",
        "__pycache__",
    )
    assert [name for name in names if any(word in name for word in unwanted)] == []
