"""`python -m integration`: the commands for a terminal. integration/cli/main.py lists them.

Whoever starts it may have another Python than the project's, so this module needs neither its
packages nor its version.
"""

from __future__ import annotations

import sys


def run() -> int:
    """Run a command and return its exit status; 2 if this Python cannot run it."""
    if sys.version_info < (3, 11):  # noqa: UP036 -- an older Python has to be told so
        sys.stderr.write(
            f"This needs Python 3.11 or later, and {sys.executable} is Python "
            f"{sys.version.split()[0]}.\n{_ADVICE}"
        )
        return 2
    try:
        from integration.cli.main import main
    except ModuleNotFoundError as error:
        return _advise(error)
    try:
        return main(sys.argv[1:])
    except ModuleNotFoundError as error:  # commands import what they need when they run
        return _advise(error)


def _advise(error: ModuleNotFoundError) -> int:
    if error.name is None or error.name.startswith("integration"):
        raise error
    sys.stderr.write(f"The package {error.name} is not installed for {sys.executable}.\n{_ADVICE}")
    return 2


_ADVICE = """\
In the project's folder, install what is needed into .venv once:
    make install
Then run the command with the Python there:
    .venv/bin/python -m integration COMMAND
"""

if __name__ == "__main__":
    sys.exit(run())
