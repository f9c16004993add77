"""The settings of what runs here, in a file for `python -m integration COMMAND --local`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from local.processes import PROJECT

_SAMPLE = PROJECT / "local.settings.sample.json"
_OWN = PROJECT / "local.settings.json"

# Settings of commands alone, which the sample does not have.
_OF_COMMANDS = ("FEED_URL", "FEED_KEY")


@contextlib.contextmanager
def keep_settings_file(file: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """Keep the settings in the file while the block runs.

    The file names every setting; "" stands for one that is not set.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    values = collect_settings(settings, os.environ)
    # Keys of a developer's environment may be among them.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        json.dump({"IsEncrypted": False, "Values": values}, opened, indent=2)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def collect_settings(settings: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every setting, as the host sees it.

    `settings` come before the environment, and that before local.settings.json.
    """
    names = [*_read_values(_SAMPLE), *_OF_COMMANDS]
    values = {**_read_values(_OWN), **env, **settings}
    return {name: values.get(name, "") for name in dict.fromkeys((*names, *settings))}


def _read_values(file: Path) -> dict[str, str]:
    try:
        found: Any = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return {name: str(value) for name, value in found.get("Values", {}).items()}
