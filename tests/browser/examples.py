"""Addresses of each page, as somebody has them who looks at these records: `{refused}` is the id of
a delivery, a patient or a job that records.py names so. A page without an example fails its tests."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": ("", "?refresh=off"),
    "attention": (
        "attention",
        "attention?kind=parked",
        "attention?sender=nobody",
        "attention?kind=parked&same_reason=none",
    ),
    "deliveries": ("deliveries", "deliveries?status=parked", "deliveries?sender=nobody"),
    "deliveries/{id}": (
        "deliveries/{written}",
        "deliveries/{refused}",
        "deliveries/{parked}",
        "deliveries/{held}",
        "deliveries/{waiting}",
        "deliveries/{row-refused}",
    ),
    "deliveries/{id}/cancel": ("deliveries/{parked}/cancel",),
    "deliveries/{id}/entries/{position}": (
        "deliveries/{written}/entries/0",
        "deliveries/{refused}/entries/1",
    ),
    "deliveries/{id}/correction": (
        "deliveries/{refused}/correction",
        "deliveries/{parked}/correction",
    ),
    "jobs": ("jobs",),
    "jobs/new": ("jobs/new?do=replay&status=parked", "jobs/new?do=cancel&status=parked"),
    "jobs/{id}": ("jobs/{job}", "jobs/{preview}"),
    "patients": ("patients",),
    "patients/{id}": ("patients/{patient}", "patients/{patient-without-row}"),
    "patients/{id}/mirrored": ("patients/{patient}/mirrored?delivery={written}",),
    "activity": ("activity", "activity?category=error", "activity?status=418"),
    "maps": ("maps",),
    "maps/{resource}": ("maps/Patient", "maps/Observation"),
    "data-routes": ("data-routes",),
    "data-routes/{resource}": (
        "data-routes/Observation?to=dataverse",
        "data-routes/Observation?to=virtual",
    ),
    "data-routes/{resource}/reconcile": ("data-routes/Patient/reconcile",),
    "configuration": ("configuration",),
    "configuration/versions/{number}": ("configuration/versions/0", "configuration/versions/1"),
    "configuration/edit": (
        "configuration/edit?document=maps/patient.toml",
        "configuration/edit?document=maps/patient.toml&draft={draft}",
        "configuration/edit?document=senders.toml",
    ),
    "configuration/drafts/{id}": (
        "configuration/drafts/{draft}",
        "configuration/drafts/{broken-draft}",
    ),
    "senders": ("senders",),
    "senders/{name}": ("senders/north", "senders/feed"),
    "settings": ("settings",),
}

# What is handed out as a file, not shown as a page.
DOWNLOADS = ("deliveries/{id}/content",)
