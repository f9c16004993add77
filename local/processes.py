"""A part of the laptop as a child process: started, waited for, ended by its id.

No part outlives the process that started it, however that dies: see `local/watchdog.py`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from local.host.settings import CannotStart

PROJECT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 35.0  # the host drains for 30

_WATCHDOG = Path(__file__).with_name("watchdog.py")


@dataclass(frozen=True, slots=True)
class Part:
    """How one part is started, and the addresses that answer when it is ready."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    ready: tuple[str, ...]
    log: Path
    folder: Path = PROJECT
    patience: float = 60.0  # seconds until it has to answer


class _Watchdog:
    """A process that kills the process groups it was told of as soon as this process has died.

    The parent-death signal of Linux would not do: it follows the thread that started a process,
    and does not reach what that process has started itself.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def watch(self, group: int) -> None:
        self._write(f"+{group}\n")

    def forget(self, group: int) -> None:
        self._write(f"-{group}\n")

    def _write(self, line: str) -> None:
        with self._lock:
            if self._process is None:
                self._process = self._start()
                atexit.register(self._process.communicate)  # closes the pipe and waits
            pipe = self._process.stdin
            assert pipe is not None
            # Without a watchdog, the parts still end when they are told to.
            with contextlib.suppress(BrokenPipeError):
                pipe.write(line)
                pipe.flush()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WATCHDOG)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # so that Ctrl-C in the terminal does not end it first
        )


_watchdog = _Watchdog()


class Child:
    """A part as a process in a group of its own, so that it can be ended whole, by its id."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._process: subprocess.Popen[bytes] | None = None
        self._begin = 0

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return str(httpx.URL(self.part.ready[0]).copy_with(raw_path=b"/")).rstrip("/")

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None, f"{self.part.name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, or start it again; returns when it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the process."""
        self.part.log.parent.mkdir(parents=True, exist_ok=True)
        with self.part.log.open("ab") as log:
            self._begin = log.tell()
            self._process = subprocess.Popen(
                self.part.command,
                cwd=self.part.folder,
                env={**os.environ, **self.part.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _watchdog.watch(self._process.pid)

    def wait(self) -> None:
        """Until it answers; ends it when it does not."""
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def join(self) -> int:
        """Wait until it ends by itself, and return its exit status."""
        assert self._process is not None, f"{self.part.name} is not running"
        status = self._process.wait()
        self.kill()
        return status

    def stop(self) -> None:
        """Ask it to end; after a while, make it."""
        self._signal(signal.SIGTERM)
        try:
            if self._process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_SECONDS)
        finally:  # also when a second Ctrl-C comes
            self.kill()

    def kill(self) -> None:
        """End it at once: nothing of it can clean up."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            _watchdog.forget(self._process.pid)
            self._process = None

    def last_lines(self, number: int = 20) -> str:
        """What it has said since it was last started."""
        said = self.part.log.read_bytes()[self._begin :] if self.part.log.exists() else b""
        return "\n".join(said.decode(errors="replace").splitlines()[-number:])

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            # The group may have ended already, all of it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _wait(self) -> None:
        end = time.monotonic() + self.part.patience
        for address in self.part.ready:
            while not _answers(address):
                if not self.running:
                    raise CannotStart(self._told("ended before it answered"))
                if time.monotonic() > end:
                    raise CannotStart(self._told(f"did not answer in {self.part.patience:.0f} s"))
                time.sleep(0.05)

    def _told(self, what: str) -> str:
        part = self.part
        return f"{part.name} {what} at {part.ready[0]}; {part.log} ends:\n{self.last_lines()}"


def _answers(address: str) -> bool:
    """Any answer but a fault will do: Azurite and WhoAmI refuse who shows no key."""
    try:
        return httpx.get(address, timeout=2.0, trust_env=False).status_code < 500
    except httpx.HTTPError:
        return False
