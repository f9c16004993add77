"""Reading JSON of unknown form. Pure."""

from __future__ import annotations

from typing import Any


def get_object(value: Any, *names: str) -> dict[str, Any]:
    """Return the object at a path of names; an empty one where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
