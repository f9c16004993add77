"""Bundles and resources as senders write them, for tests of what the relay makes of them."""

from __future__ import annotations

from datetime import date
from typing import Any

# Stands for everything a patient could be known by: it may be in bytes and rows, nowhere else.
MARKER = "Zaphkiel-7731"

Body = dict[str, Any]

TODAY = date(2026, 3, 2)  # of mappings


def bundle(*entries: Body, kind: str = "transaction") -> Body:
    """Return a bundle with these entries."""
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def batch(*entries: Body) -> Body:
    """Return a batch with these entries."""
    return bundle(*entries, kind="batch")


def entry(
    resource: Body | None = None,
    full_url: str | None = None,
    method: str = "POST",
    url: str | None = None,
    **request: str,
) -> Body:
    """Return an entry: a create, unless the method or the rest of the request says something else.

    The address is the type of the resource, with its id where it has one and the method is not POST.
    """
    if url is None:
        assert resource is not None
        url = resource["resourceType"]
        if method != "POST" and "id" in resource:
            url = f"{url}/{resource['id']}"
    made: Body = {"fullUrl": full_url} if full_url else {}
    if resource is not None:
        made["resource"] = resource
    return {**made, "request": {"method": method, "url": url, **request}}


def patient(**elements: Any) -> Body:
    """Return a patient, whose name is the marker unless the elements give another."""
    return {"resourceType": "Patient", "name": [{"family": MARKER}], **elements}


def observation(subject: str | None = None, **elements: Any) -> Body:
    """Return an observation, of the subject with this reference."""
    about = {"subject": {"reference": subject}} if subject else {}
    code = {"text": MARKER}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": code,
        **about,
        **elements,
    }


def put_patient(id_: str, **elements: Any) -> Body:
    """Return an entry that writes the patient with this id."""
    return entry(patient(id=id_, **elements), method="PUT")


def put_observation(id_: str, **elements: Any) -> Body:
    """Return an entry that writes the observation with this id."""
    return entry(observation(id=id_, **elements), method="PUT")
