"""What forms that filter lists have in common. Pure."""

from __future__ import annotations

from collections.abc import Mapping

_TIMES = ("since", "until")


def build_query(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a verb for the fields of a form.

    A field for a date and time has no zone, so it is labelled as UTC.
    """
    return {
        name: f"{value}Z" if name in _TIMES and _has_no_zone(value) else value
        for name, value in fields.items()
    }


def _has_no_zone(text: str) -> bool:
    """Whether it is a time as browsers send it: 2026-03-02T07:30, or with seconds."""
    return len(text) in (16, 19, 23)
