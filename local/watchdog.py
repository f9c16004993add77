"""Kill process groups when the process that started them dies.

`local.processes` starts this file once in each process, and writes `+GROUP` to its standard input
when it starts a service and `-GROUP` when the service has ended. The system closes that pipe when
the process dies, also by SIGKILL. Then all groups that are left are killed.

It runs by its path, with the standard library alone, so that it starts in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        # It may have ended at the same time. macOS refuses a group in which all are zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
