"""Addresses of each page, as somebody has them who looks at these records: `{refused}` is the id of
a delivery, or of a patient, that records.py names so. A page without an example fails its tests."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": ("", "?refresh=off"),
    "deliveries": ("deliveries",),
    "deliveries/{id}": (
        "deliveries/{written}",
        "deliveries/{refused}",
        "deliveries/{parked}",
        "deliveries/{held}",
        "deliveries/{waiting}",
        "deliveries/{row-refused}",
    ),
    "deliveries/{id}/entries/{n}": (
        "deliveries/{written}/entries/0",
        "deliveries/{refused}/entries/1",
    ),
    "deliveries/{id}/correction": (
        "deliveries/{refused}/correction",
        "deliveries/{parked}/correction",
    ),
    "attention": ("attention", "attention?kind=parked"),
    "jobs": ("jobs",),
    "patients": ("patients",),
    "activity": ("activity",),
    "maps": ("maps",),
    "data-routes": ("data-routes",),
    "senders": ("senders",),
    "settings": ("settings",),
}

# Pages to which others lead already, and which are not built yet: take out what is.
NOT_BUILT = frozenset(EXAMPLES) - {""}
