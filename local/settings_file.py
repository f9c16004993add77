"""The settings of what runs here, in a file for `python -m integration COMMAND --local`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from local.host.settings import read_local_settings
from local.processes import PROJECT

_SAMPLE = PROJECT / "local.settings.sample.json"

# Settings of commands alone, which the sample does not have.
_OF_COMMANDS = ("FEED_URL", "FEED_KEY")


@contextlib.contextmanager
def keep_settings_file(file: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """Keep the settings in the file while the block runs.

    The file names every setting; "" stands for one that is not set. Raises CannotStart if
    local.settings.json cannot be read.
    """
    values = collect_settings(settings, os.environ)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Keys of a developer's environment may be among them: a new file, for its owner alone.
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            json.dump({"IsEncrypted": False, "Values": values}, opened, indent=2)
        yield
    finally:
        file.unlink(missing_ok=True)


def collect_settings(settings: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every setting, as the host sees it.

    `settings` come before the environment, and that before local.settings.json. Raises CannotStart
    if that file cannot be read.
    """
    sample = json.loads(_SAMPLE.read_text("utf-8"))["Values"]
    values = {**env}
    read_local_settings(PROJECT, values)
    values |= settings
    return {
        name: values.get(name, "") for name in dict.fromkeys((*sample, *_OF_COMMANDS, *settings))
    }
