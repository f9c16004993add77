"""`python -m integration` with a Python that lacks the packages says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from integration import __main__ as start
from local.processes import PROJECT


def run_without_packages(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the commands with -S, which leaves the packages out, and -I, which leaves out all else."""
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(PROJECT)!r}); "
        f"sys.argv[1:] = {list(arguments)!r}; "
        "runpy.run_module('integration', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-S", "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "command", ["plan", "map", "toolkit", "provision", "check", "reconcile", "sender"]
)
def test_a_command_without_its_packages_says_how_to_install_them(command: str) -> None:
    ended = run_without_packages(command, "x")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"is not installed for {sys.executable}" in ended.stderr
    assert "make install" in ended.stderr
    assert ".venv/bin/python -m integration" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_old_python_is_told_which_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    assert start.run() == 2
    assert "Python 3.11 or later" in capsys.readouterr().err


def test_a_module_of_our_own_that_is_missing_is_a_fault_and_no_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "integration.cli.main", None)
    with pytest.raises(ModuleNotFoundError):
        start.run()


def test_help_needs_no_command_and_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    from integration.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    first_words = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line}
    assert {"plan", "map", "toolkit", "provision", "check", "reconcile"} <= first_words


def test_a_command_imports_no_more_than_it_needs() -> None:
    """Planning must not wait for the SDKs of storage, nor for the whole app."""
    code = (
        "import sys; from integration.cli.main import main\n"
        "try: main(['plan', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith(('azure', 'integration.app.wiring'))])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(PROJECT),
    )
    assert ended.stdout.splitlines()[-1] == "[]"
