"""Provision the Dataverse stand-in as an organisation is, by the command that does it there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from local.host.settings import CannotStart, parse_keys
from local.processes import Child, Part

# The publisher's prefix, where the settings name none. Dataverse's own default publisher has it.
DEFAULT_PREFIX = "new"

# The client id of an identity that the stand-in gives a user and the role.
_IDENTITY = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4eaa"

# A host without keys takes any.
_ANY_KEY = "any"


def choose_settings(settings: Mapping[str, str], feed_url: str, keys: str) -> dict[str, str]:
    """Return the settings by which virtual tables are named, and their feed is reached.

    `settings`: all that were collected so far; `keys`: HOST_FUNCTION_KEYS. Raises CannotStart.
    """
    usable = [key for name, key in parse_keys(keys).items() if "/" not in name]
    return {
        "MAP_PREFIX": settings.get("MAP_PREFIX") or DEFAULT_PREFIX,
        # Not those of another deployment, which the environment may name.
        "FEED_URL": feed_url,
        "FEED_KEY": usable[0] if usable else _ANY_KEY,
    }


def launch_provisioning(settings: Mapping[str, str], folder: Path) -> Child:
    """Start `python -m integration provision`. It takes some seconds; the host starts meanwhile."""
    command = (sys.executable, "-m", "integration", "provision", "--identity", _IDENTITY)
    log = folder / "provision.log"
    child = Child(Part(name="provision", command=command, env=settings, ready=(), log=log))
    child.launch()
    return child


def finish_provisioning(child: Child) -> None:
    """Wait until it is done. Raises CannotStart if something is left to do."""
    if status := child.join():
        text = f"provision ended with {status}; {child.part.log} ends with:\n{child.last_lines()}"
        raise CannotStart(text)
