"""Makes a resource of a row that somebody has made in Dataverse, where a setting allows it.

Nobody can tell two patients with one name and one day of birth apart, so a row that lacks either is
refused, and so is one whose like FHIR has already: a person decides.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from integration.core.errors import Rejected, Unavailable, Unmappable
from integration.core.model import Row, RowResult
from integration.core.state_version import NEVER_SEEN, StateVersion
from integration.edits.guarded_write import check_valid
from integration.edits.signed_write import write_signed
from integration.mapping.model import EntityMap
from integration.mapping.write_back import apply
from integration.mapping.write_back.row_changes import find_culprits, read_values
from integration.mirror.row_diff import MERGED, get_column_value
from integration.mirror.row_edits import find_author, is_exact
from integration.mirror.row_lookup import INACTIVE
from integration.mirror.row_sink import MirrorJob
from integration.mirror.write_edits import WriteBack

# What tells one patient from another, by the elements that a search finds them by.
_FAMILY, _BIRTH_DATE = "family", "birthdate"


async def make_resource(
    write_back: WriteBack, job: MirrorJob, row: Row | None, *, today: date
) -> StateVersion | RowResult:
    """Make the resource that a row shows. Return its version, or the result that says why there is
    none.

    Raises Unavailable and Misconfigured.
    """
    entity, fhir = job.entity, write_back.writer.fhir
    version = (await fhir.read_current(job.item)).version
    if version.is_deleted and version != NEVER_SEEN:
        return job.build_result("absent", notes=("FHIR had this resource, and it was deleted",))
    if version != NEVER_SEEN:
        return version  # an earlier attempt has made it
    if row is None or not _is_new(entity, row):
        return job.build_result("absent")
    key = str(row[entity.key])
    try:
        new = _build_resource(job, row, base=fhir.upstream.base, today=today)
        await _refuse_duplicate(write_back, job, new)
        stored = await write_signed(write_back.writer, None, new, find_author(row))
    except (Rejected, Unmappable) as error:
        return job.build_result("refused", row=key, notes=(f"no {entity.resource}: {error}",))
    if stored is None:
        raise Unavailable(fhir.upstream.name, "somebody else has just made this resource")
    return stored.version


def _is_new(entity: EntityMap, row: Row) -> bool:
    """Whether a row is active and has never shown a resource: one that was let go of a resource, or
    merged, is nobody new."""
    shown = (row.get(entity.id_column), row.get(entity.version_column))
    is_active = row.get("statecode") != INACTIVE
    return is_active and not row.get(MERGED) and shown == (None, None)


def _build_resource(job: MirrorJob, row: Row, *, base: str, today: date) -> dict[str, Any]:
    entity, columns = job.entity, job.tables[job.entity.table]
    edits = {
        attribute.column: value
        for attribute in entity.attributes
        if attribute.writeback
        and attribute.column in columns
        and is_exact(attribute, columns[attribute.column])
        and (value := get_column_value(row, attribute.column)) is not None
    }
    changes, _ = read_values(entity, edits)
    while True:
        try:
            new = apply.create_resource(entity, job.id, changes, columns, base, today=today)
            check_valid({}, new)
        except Rejected as error:
            # A column may have a default of Dataverse that nobody has typed, and that fits nowhere.
            left = changes.keys() - find_culprits(error, changes)
            if not left:
                raise
            changes = {name: value for name, value in changes.items() if name in left}
        else:
            return new


async def _refuse_duplicate(write_back: WriteBack, job: MirrorJob, new: dict[str, Any]) -> None:
    """Raise Unmappable where FHIR may have this patient already, or nobody can tell."""
    names = [name["family"] for name in new.get("name", ()) if name.get("family")]
    if not names or not new.get("birthDate"):
        raise Unmappable("it needs a last name and a date of birth, to see whether FHIR has it")
    parameters = [(_FAMILY, names[0]), (_BIRTH_DATE, new["birthDate"]), ("_elements", "id")]
    page = await write_back.writer.fhir.search_by_post(
        job.entity.resource, parameters, job.item.delivery
    )
    found = [
        f"{job.entity.resource}/{entry['resource'].get('id')}"
        for entry in page.get("entry", ())
        if entry.get("search", {}).get("mode") != "outcome" and "resource" in entry
    ]
    if found:
        raise Unmappable(
            f"FHIR has {', '.join(found[:3])} with this last name and date of birth: merge the row "
            "with that patient's, or make the patient in the EHR"
        )
