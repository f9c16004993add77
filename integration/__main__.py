"""`python -m integration`: the commands for a terminal. integration/cli/main.py lists them."""

from __future__ import annotations

import sys


def run() -> int:
    """Run a command. Outside the project's environment, say how to get into it."""
    if sys.version_info < (3, 11):  # noqa: UP036 -- whoever starts it may have another
        sys.stderr.write("Python 3.11 or later is needed; this is " + sys.version.split()[0] + "\n")
        return 2
    try:
        from integration.cli.main import main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("integration"):
            raise
        sys.stderr.write(
            f"{error.name} is not installed for {sys.executable}. "
            "Run `make install`, then use .venv/bin/python -m integration\n"
        )
        return 2
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
