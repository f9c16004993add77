"""What the page of a patient says: who it is, and why its row is up to date or not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from integration.core.model import Activity, FhirResource
from integration.core.state_version import NEVER_SEEN, Order, compare, get_version
from integration.fhir.client import CurrentState
from integration.fhir.grammar import is_id, parse_literal
from integration.fhir.version_list import ListedVersion
from integration.fhir.write_mark import Mark, read_mark
from integration.journal.concern import Concern
from integration.journal.table_keys import is_delivery_id, parse_accepted_time
from integration.operations.status import Unreadable

if TYPE_CHECKING:  # it imports the mapping engine, which takes long to load
    from integration.mirror.row_state import RowStates

# The uses of a name, the one to be shown first: https://hl7.org/fhir/R4/valueset-name-use.html
_USES = ("official", "usual")

# What became of a run of the mirror that has left its row behind.
_UNDONE = ("refused", "parked", "requeued")

_LINKS = {
    "replaced-by": "It was merged into",
    "replaces": "It takes the place of",
    "refer": "See also",
    "seealso": "See also",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientLink:
    """What Patient.link says. `id`: of a patient on this server; None: of another resource."""

    words: str
    reference: str
    id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentPatient:
    """A patient, in no more values than tell that it is the right one."""

    name: str
    birth_date: str
    active: bool | None
    version: str
    updated: datetime | None
    mark: Mark | None
    links: tuple[PatientLink, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the row is up to date. `kind`: good, warn or bad."""

    kind: str
    text: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """One time that a delivery touched the patient. `time`: None: not stated."""

    delivery: str
    what: str
    time: datetime | None


def describe_patient(resource: FhirResource) -> CurrentPatient:
    """Describe the current version of a patient, whatever it holds."""
    version = get_version(resource)
    active = resource.get("active")
    return CurrentPatient(
        name=_choose_name(resource.get("name")),
        birth_date=_get_text(resource, "birthDate"),
        active=active if isinstance(active, bool) else None,
        version=version.id or "",
        updated=parse_time(version.updated),
        mark=read_mark(resource),
        links=tuple(_list_links(resource.get("link"))),
    )


def parse_time(instant: str | None) -> datetime | None:
    """Parse an instant of FHIR; None where there is none that can be read."""
    try:
        time = datetime.fromisoformat(instant) if instant else None
    except ValueError:
        return None
    return time.astimezone(UTC) if time is not None and time.tzinfo is not None else None


def judge_row(
    state: CurrentState | Unreadable,
    rows: RowStates | Unreadable,
    *,
    is_mirrored: bool | Unreadable,
    concerns: Sequence[Concern] | Unreadable,
    results: Sequence[Activity] | Unreadable,
) -> Verdict:
    """Say whether the row shows what FHIR has, and what is known of why it does not."""
    if isinstance(rows, Unreadable):
        return _doubt(f"Its row cannot be read: {rows.reason}")
    if isinstance(state, Unreadable):
        return _doubt(f"FHIR cannot be read: {state.reason}")
    kind, text = _compare(state, rows)
    if kind == "good":
        waits = [] if isinstance(concerns, Unreadable) else [concern.reason for concern in concerns]
        if waits:
            return Verdict(kind="warn", text=f"{text}, but not complete", reasons=tuple(waits))
        return Verdict(kind=kind, text=text)
    reasons = [] if rows.problem is None else [rows.problem]
    if is_mirrored is False:
        reasons.append("patients are not mirrored: see Data routes, and the setting MIRROR_TO")
    if not isinstance(concerns, Unreadable):
        reasons += [concern.reason for concern in concerns]
    if not isinstance(results, Unreadable) and results and results[0].status in _UNDONE:
        reasons += [f"the last run ended {results[0].status}", *results[0].notes]
    if not reasons:
        reasons.append("nothing is known to be wrong: its work item may be on its way")
    return Verdict(kind=kind, text=text, reasons=tuple(dict.fromkeys(reasons)))


def _doubt(reason: str) -> Verdict:
    text = "It is not known whether its row is up to date"
    return Verdict(kind="warn", text=text, reasons=(reason,))


def _compare(state: CurrentState, rows: RowStates) -> tuple[str, str]:
    is_gone = state.resource is None
    if rows.row is None:
        if rows.problem is not None:
            return "bad", "No row can be taken for its own"
        return ("good", "It has no row, as it should be") if is_gone else ("bad", "It has no row")
    if rows.row.shown is None:
        return "bad", "Its row shows no version"
    match compare(state.version, rows.row.shown):
        case Order.SAME:
            return (
                "good",
                "Its row shows that it was deleted" if is_gone else "Its row is up to date",
            )
        case Order.NEWER | Order.PROBABLY_NEWER:
            return (
                "bad",
                "Its row does not show that it was deleted" if is_gone else "Its row is behind",
            )
        case Order.OLDER | Order.PROBABLY_OLDER:
            return "warn", "Its row shows a later version than this read of FHIR"
    if state.version == NEVER_SEEN:
        return "bad", "FHIR does not know it, and it has a row"
    return "warn", "The versions do not tell whether its row is up to date"


def list_touches(
    versions: Sequence[ListedVersion] | Unreadable, results: Sequence[Activity] | Unreadable
) -> list[Touch]:
    """Return which deliveries have written the patient, and which had its row mirrored, the newest
    first. What states no time stands where its delivery was accepted."""
    touches: list[Touch] = []
    if not isinstance(versions, Unreadable):
        touches += [
            Touch(
                delivery=version.mark.delivery,
                what=f"wrote version {version.id} in FHIR, by its entry {version.mark.position}",
                time=parse_time(version.updated),
            )
            for version in versions
            if version.mark is not None
            and not version.is_kept_mark
            and is_delivery_id(version.mark.delivery)
        ]
    if not isinstance(results, Unreadable):
        touches += [
            Touch(delivery=entry.delivery, what=f"row: {entry.status}", time=entry.time)
            for entry in results
            if entry.delivery is not None
        ]
    return sorted(touches, key=_find_time, reverse=True)


def _find_time(touch: Touch) -> datetime:
    if touch.time is not None:
        return touch.time
    return parse_accepted_time(touch.delivery)


def _choose_name(names: Any) -> str:
    """Return the official name, else the usual one, else the first."""
    found = [name for name in names if isinstance(name, dict)] if isinstance(names, list) else []
    if not found:
        return ""
    ranked = {use: rank for rank, use in enumerate(_USES)}
    name = min(found, key=lambda item: ranked.get(str(item.get("use")), len(ranked)))
    if text := _get_text(name, "text"):
        return text
    given = name.get("given")
    parts = [part for part in given if isinstance(part, str)] if isinstance(given, list) else []
    return " ".join(filter(None, (*parts, _get_text(name, "family"))))


def _list_links(links: Any) -> list[PatientLink]:
    found = [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
    return [_describe_link(link) for link in found]


def _describe_link(link: Mapping[str, Any]) -> PatientLink:
    other = link.get("other")
    reference = _get_text(other, "reference") if isinstance(other, dict) else ""
    literal = parse_literal(reference)
    type_, _, id_ = literal.identity.partition("/") if literal else ("", "", "")
    is_here = literal is not None and not literal.root and type_ == "Patient" and is_id(id_)
    return PatientLink(
        words=_LINKS.get(_get_text(link, "type"), "See also"),
        # Another reference may hold an identifier, which is not needed to tell who this is.
        reference=literal.identity if literal else "a patient that is named otherwise",
        id=id_ if is_here else None,
    )


def _get_text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    return text if isinstance(text, str) else ""
