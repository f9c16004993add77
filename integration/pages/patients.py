"""The page Patients: find one patient, by what an operator has at hand.

An identifier is a value of a patient. So it travels in the bodies of requests alone, from the
browser and to the FHIR server: addresses are logged. To find one costs one search, or up to one
storage operation and one read of Dataverse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from integration.core.errors import Unavailable
from integration.fhir.grammar import is_id
from integration.fhir.search import escape
from integration.fhir.searchset import list_matches
from integration.journal.audit_entry import AccessKind, Reader, build_access
from integration.journal.audit_recorder import record
from integration.pages.compiled_maps import load_mirror
from integration.pages.http import Reply, redirect
from integration.pages.view import View, render

FIELDS = ("by", "id", "system", "identifier", "key")

# Patients that are listed where an identifier is that of several.
_MAX_FOUND = 20


async def show_search(view: View) -> Reply:
    """Show the forms."""
    return _show(view)


async def find_patient(view: View) -> Reply:
    """Take one of the forms, and go to the patient that it names."""
    match view.fields.get("by"):
        case "id":
            return _find_by_id(view)
        case "identifier":
            return await _find_by_identifier(view)
        case "key":
            return await _find_by_key(view)
    return _show(view, "Fill in one of the three forms.", status=400)


def _find_by_id(view: View) -> Reply:
    id_ = view.fields.get("id", "").removeprefix("Patient/")
    if not is_id(id_):
        text = "A FHIR id has up to 64 letters, digits, dots and hyphens."
        return _show(view, text, status=400)
    return redirect(f"patients/{id_}")


async def _find_by_identifier(view: View) -> Reply:
    value, system = view.fields.get("identifier"), view.fields.get("system")
    if value is None:
        return _show(view, "State the value of the identifier.", status=400)
    token = escape(value) if system is None else f"{escape(system)}|{escape(value)}"
    parameters = (("identifier", token), ("_elements", "id"), ("_count", str(_MAX_FOUND)))
    patients, now = view.parts.patients, view.parts.now()
    try:
        async with asyncio.timeout(2 * patients.timeout):
            page = await patients.fhir.search_by_post("Patient", parameters, patients.new_id(now))
    except TimeoutError:
        raise Unavailable("FHIR server", "a search was not answered in time") from None
    found = [str(resource["id"]) for resource in list_matches("Patient", page)]
    names = [f"Patient/{id_}" for id_ in found]
    # Whether there is somebody with an identifier tells something of that person already.
    access = build_access(AccessKind.PATIENT, names, type_="Patient")
    await record(view.parts.audit, Reader(user=view.person.name), access)
    if len(found) == 1:
        return redirect(f"patients/{found[0]}")
    if found:
        return _show(view, found=found)
    return _show(view, "FHIR has no patient with this identifier.", status=404)


async def _find_by_key(view: View) -> Reply:
    try:
        key = str(UUID(view.fields.get("key", "")))
    except ValueError:
        text = "A key is a GUID, such as 5f0c2a1e-8f0b-4c55-9d0b-1d3f7a9b2c44."
        return _show(view, text, status=400)
    id_ = await _find_id_of_key(view, key)
    if id_ is None:
        text = "No contact has this key, or it shows no patient of FHIR."
        return _show(view, text, status=404)
    return redirect(f"patients/{id_}")


async def _find_id_of_key(view: View, key: str) -> str | None:
    """Return the FHIR id that a key leads back to: as it is recorded, else as the row says."""
    patients = view.parts.patients
    recorded = (await patients.row_keys.find_ids("Patient", [key])).get(key)
    if recorded is not None:
        return recorded
    correlation = patients.new_id(view.parts.now())
    mirror = await load_mirror(patients)  # which takes long the first time
    from integration.mirror.row_state import find_resource_of_key

    try:
        async with asyncio.timeout(2 * patients.timeout):
            id_ = await find_resource_of_key(mirror, "Patient", key, correlation)
    except TimeoutError:
        raise Unavailable("Dataverse", "a row was not read in time") from None
    return id_ if is_id(id_) else None


def _show(
    view: View, problem: str | None = None, *, found: Sequence[str] = (), status: int = 200
) -> Reply:
    """Nothing that was filled in is shown again: it may be a value of a patient."""
    return render(
        view, "patients.html", status=status, problem=problem, found=found, max_found=_MAX_FOUND
    )
