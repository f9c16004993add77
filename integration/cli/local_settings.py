"""`--local`: run a command with the settings of what `make start` runs on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from pathlib import Path

from integration.core.errors import Misconfigured

# `make start` writes this file when everything is ready, and removes it when it ends.
FILE = Path(__file__).resolve().parents[2] / ".local" / "settings.json"

# How an account is named when a managed identity reaches it. A connection string replaces them all.
_STORAGE_BY_IDENTITY = "AzureWebJobsStorage__"


def use_local_settings(
    file: Path | None = None, env: MutableMapping[str, str] = os.environ
) -> None:
    """Replace the environment's settings by those in the file, by default FILE.

    The file has the form of local.settings.json:
    https://learn.microsoft.com/azure/azure-functions/functions-develop-local#local-settings-file
    Raises Misconfigured if it is missing or cannot be read.
    """
    file = file or FILE
    try:
        values = json.loads(file.read_text("utf-8"))["Values"]
        settings = {str(name): str(value) for name, value in values.items()}
    except FileNotFoundError:
        raise Misconfigured(
            "--local needs the local services: run `make start` in another terminal, wait until "
            "it says ready, and run this command again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise Misconfigured(
            f"{file} cannot be read: stop `make start` and start it again"
        ) from None
    for name in [name for name in env if name.startswith(_STORAGE_BY_IDENTITY)]:
        del env[name]
    env.update(settings)
