"""Patients as they come: incomplete, contradictory, enormous, in every script. Each has its rows, and
what did not fit is noted; a map that does not fit is told with its line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from integration.core.model import RowResult, WorkItem
from integration.mapping import load
from integration.mapping.load import Maps
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from local.dataverse import tables
from tests.conftest import Route, routed
from tests.doubles import DataverseDouble
from tests.mapping.casework import MISSING

ID = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
DELIVERY = "019caaee-c260-7000-8000-000000000001"

NAMED = {"name": [{"family": "A"}]}
WITHHELD = {
    "extension": [
        {
            "url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
            "valueCode": "masked",
        }
    ]
}
EXTENDED = {"extension": [{"url": "http://hospital.example/note", "valueString": "x"}]}
DOCTOR = "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{STAFF OF AESCULAPIUS}\N{VARIATION SELECTOR-16}"
MORE = "more than the map has columns for"


@dataclass(frozen=True, slots=True)
class Difficult:
    """A patient, columns of its contact, and every note, without path and line."""

    title: str
    elements: Mapping[str, Any]
    columns: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


PATIENTS = [
    Difficult("nothing but an id", {}, {"lastname": None, "statecode": 0}),
    # -- repeated ------------------------------------------------------------------------------
    Difficult(
        "more of everything than there are columns",
        {
            "name": [{"use": "usual", "family": name} for name in "ABC"],
            "telecom": [{"system": "phone", "use": "home", "value": n} for n in "1234"]
            + [{"system": "url", "value": "http://a.example"}],
            "address": [{"use": "home", "city": city} for city in "KLM"],
            "communication": [{"language": {"coding": [{"code": c}]}} for c in ("de", "fr", "en")],
            "contact": [{"gender": "male"}, {"gender": "female"}, {"gender": "other"}],
            "photo": [{"title": "one"}],
        },
        {"lastname": "A", "telephone2": "1", "telephone3": "2", "address1_city": "K"},
        (
            f"name: 2 {MORE}",
            f"telecom: 3 {MORE}",
            f"address: 2 {MORE}",
            f"communication: 1 {MORE}",
            f"contact: 2 {MORE}",
            f"photo: 1 {MORE}",
        ),
    ),
    Difficult(
        "the same said twice",
        {
            "name": [{"family": "A"}] * 2,
            "identifier": [{"system": "urn:mrn", "value": "1"}] * 2,
            "address": [{"city": "K"}] * 2,
        },
        {"lastname": "A", "address1_city": "K"},
        ("msemr_medicalidentifier: more than one item has the same key; the first was taken",),
    ),
    Difficult(
        "what is no longer in use",
        {
            "name": [{"family": "A"}, {"use": "old", "family": "B"}],
            "telecom": [{"system": "phone", "use": "old", "value": "1"}],
            "address": [{"use": "old", "city": "K"}],
        },
        {"lastname": "A", "telephone2": None, "address1_city": None},
    ),
    Difficult(
        "next of kin",
        {
            "contact": [
                {
                    "relationship": [{"coding": [{"code": "C"}]}],
                    "name": {"family": "K"},
                    "telecom": [{"system": "phone", "value": "1"}, {"system": "fax", "value": "2"}],
                    "address": {"city": "L"},
                }
            ]
        },
        {"telephone3": None},
        (f"contact.name: 1 {MORE}", f"contact.telecom: 2 {MORE}", f"contact.address: 1 {MORE}"),
    ),
    # -- contradictory -------------------------------------------------------------------------
    Difficult(
        "dead by one word and with a day by another",
        {"deceasedBoolean": False, "deceasedDateTime": "2024-05-06"},
        {},
        ("deceased: deceasedBoolean and deceasedDateTime contradict each other",),
    ),
    Difficult(
        "a twin by one word and the second by another",
        {"multipleBirthBoolean": False, "multipleBirthInteger": 2},
        {},
        ("multipleBirth: multipleBirthBoolean and multipleBirthInteger contradict each other",),
    ),
    Difficult("dead, nobody says when", {"deceasedBoolean": True}, {}, (f"deceased: 1 {MORE}",)),
    Difficult("alive", {"deceasedBoolean": False, "multipleBirthBoolean": False}),
    Difficult(
        "in use, and replaced by somebody unknown here",
        {
            "active": True,
            "link": [{"other": {"reference": "Patient/none"}, "type": "replaced-by"}],
        },
        {"statecode": 0, "_msemr_link1_value": None},
        (
            "msemr_link1: the Patient is not in Dataverse yet",
            "msemr_link: the Patient is not in Dataverse yet",
        ),
    ),
    # -- codes ---------------------------------------------------------------------------------
    Difficult(
        "codes that nobody knows",
        {
            "gender": "robot",
            "maritalStatus": {"coding": [{"code": "?"}]},
            "name": [{"use": "stage", "family": "A"}],
            "telecom": [{"system": "phone", "use": "night", "value": "1"}],
            "address": [{"use": "holiday", "city": "K"}],
            "communication": [{"language": {"text": "the one of the village"}}],
        },
        {"gendercode": None, "lastname": "A", "telephone3": "1", "address1_city": None},
        (
            "gendercode: the code has no option in this column",
            "familystatuscode: the code has no option in this column",
            "msemr_name1use: the code has no option in this column",
            "msemr_telecom1use: the code has no option in this column",
            "msemr_communication1language: the concept has no code",
            f"address: 1 {MORE}",
        ),
    ),
    # -- withheld, and said by extensions alone --------------------------------------------------
    Difficult(
        "everything withheld",
        {
            "_gender": WITHHELD,
            "_birthDate": WITHHELD,
            "_deceasedDateTime": WITHHELD,
            "_active": WITHHELD,
            "name": [{"_family": WITHHELD, "given": [None], "_given": [WITHHELD]}],
            "telecom": [{"system": "phone", "use": "home", "_value": WITHHELD}],
            "address": [{"use": "home", "line": [None], "_line": [WITHHELD]}],
            "identifier": [{"system": "urn:mrn", "_value": WITHHELD}],
        },
        {"statecode": 0, "gendercode": None, "birthdate": None, "telephone2": None},
        (
            "statecode: no value, only extensions",
            "firstname: no value, only extensions",
            "lastname: no value, only extensions",
            "gendercode: no value, only extensions",
            "birthdate: no value, only extensions",
            "msemr_deceaseddate: no value, only extensions",
            "telephone2: no value, only extensions",
            "address1_line1: no value, only extensions",
            "msemr_medicalidentifier: a row without msemr_value was left out",
        ),
    ),
    Difficult(
        "a birth date that carries a birth time",
        {"birthDate": "1980-05-06", "_birthDate": EXTENDED},
        {"birthdate": "1980-05-06"},
    ),
    Difficult(
        "elements that are nothing but extensions",
        {name: [EXTENDED] for name in ("name", "telecom", "address", "contact", "communication")},
        {"lastname": None},
    ),
    # -- dates ---------------------------------------------------------------------------------
    Difficult(
        "dates that say no day",
        {
            "birthDate": "1980-05",
            "deceasedDateTime": "2024",
            "name": [{"family": "A", "period": {"start": "2001", "end": "2002-02"}}],
        },
        {"birthdate": None, "msemr_deceaseddate": "2024-01-01"},
        (
            "msemr_name1startdate: the date is incomplete; its first day was taken",
            "msemr_name1enddate: the date is incomplete; its last day was taken",
            "birthdate: the date is incomplete",
            "msemr_deceaseddate: the date is incomplete; its first day was taken",
        ),
    ),
    Difficult(
        "dates that no calendar and no column has",
        {"birthDate": "1980-02-30", "deceasedDateTime": "1066-10-14"},
        {},
        ("birthdate: the date does not exist", "msemr_deceaseddate: the date is before 1753"),
    ),
    # -- scripts -------------------------------------------------------------------------------
    Difficult(
        "a name from right to left, with the marks that turn the direction",
        {"name": [{"family": "\u200fعَلي\u200e", "given": ["שָׂרָה"]}]},
        {"lastname": "\u200fعَلي\u200e", "firstname": "שָׂרָה"},
    ),
    Difficult(
        "names in the scripts of Asia",
        {"name": [{"family": "山田", "given": ["太郎"]}, {"use": "nickname", "text": "ธนพล"}]},
        {"lastname": "山田", "firstname": "太郎", "nickname": "ธนพล"},
    ),
    Difficult(
        "an emoji of several characters, too often for the column and never cut in half",
        {"name": [{"family": DOCTOR * 11}]},
        {"lastname": DOCTOR * 10},
        ("lastname: the text is longer than 50 characters and was cut",),
    ),
    # -- no text at all ------------------------------------------------------------------------
    Difficult(
        "characters that no text may hold",
        {"name": [{"family": "A\x00B\ufffe"}]},
        {"lastname": "AB"},
        ("lastname: forbidden characters were left out",),
    ),
    Difficult(
        "markup and quotes",
        {"name": [{"family": "O'Neil <b>\"&\\ %27 --"}]},
        {"lastname": "O'Neil <b>\"&\\ %27 --"},
    ),
    Difficult(
        "blanks and emptiness",
        {"name": [{"family": "  ", "given": ["", " A "]}], "telecom": [{}], "address": []},
        {"lastname": None, "address1_city": None},
    ),
]


@pytest.fixture
async def plain(route: Route) -> AsyncIterator[Route]:
    """A route to an organisation without Cloud for Healthcare."""
    dataverse = DataverseDouble(tables.read_additions())
    ends = {
        "journal": route.journal,
        "queue_sender": route.queue_sender,
        "guard_store": route.guard_store,
    }
    async with routed(route.fhir_double, dataverse, route.clock, **ends) as found:
        found.maps = found.all_maps = load.load_shipped_maps("plain", "new")
        yield found
    dataverse.app.close()


async def mirror(route: Route, elements: Mapping[str, Any]) -> RowResult:
    route.fhir_double.add({"resourceType": "Patient", "id": ID, **elements})
    return await brought(route)


async def brought(route: Route) -> RowResult:
    """What was noted."""
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=f"Patient/{ID}"))
    (noted,) = await route.journal.list_row_results(DELIVERY)
    found: RowResult = noted
    return found


def bare(notes: tuple[str, ...]) -> list[str]:
    """Without the path and the line of the map."""
    return [note.partition(" @ ")[0] for note in notes]


@pytest.mark.parametrize("one", PATIENTS, ids=[one.title for one in PATIENTS])
async def test_a_difficult_patient_has_its_contact_and_its_notes(
    route: Route, one: Difficult
) -> None:
    noted = await mirror(route, one.elements)
    assert noted.action == "created"
    row = await route.dataverse_double.contact()
    assert {name: row[name] for name in one.columns} == one.columns
    # Most of them have no name, for brevity.
    notes = [note for note in bare(noted.notes) if note in one.notes or not note.endswith(MISSING)]
    assert sorted(notes) == sorted(one.notes)
    written = len(route.dataverse_double.writes)
    again = await brought(route)
    assert again.action == "unchanged", "what was cut or left out is no difference"
    assert len(route.dataverse_double.writes) == written


async def test_one_after_the_other_they_have_a_contact_without_the_healthcare_columns_too(
    plain: Route,
) -> None:
    """Of the patient before, nothing stays."""
    for one in PATIENTS:
        noted = await mirror(plain, one.elements)
        assert noted.action in ("created", "updated"), one.title
        row = await plain.dataverse_double.contact()
        shared = {name: value for name, value in one.columns.items() if "msemr" not in name}
        assert {name: row[name] for name in shared} == shared, one.title


async def test_two_hundred_identifiers_are_rows_and_of_fifty_addresses_three_have_columns(
    route: Route,
) -> None:
    numbers = [{"system": f"urn:{n % 7}", "value": str(n)} for n in range(200)]
    uses = ["home", "temp", "billing"]
    homes = [{"use": uses[n % 3], "city": f"Town {n}"} for n in range(50)]
    noted = await mirror(route, {**NAMED, "identifier": numbers, "address": homes})
    assert bare(noted.notes) == [f"address: 47 {MORE}"]
    row = await route.dataverse_double.contact()
    cities = [row[f"address{n}_city"] for n in (1, 2, 3)]
    assert cities == ["Town 0", "Town 1", "Town 2"]
    rows = await route.dataverse_double.rows("msemr_medicalidentifiers")
    assert sorted(int(each["msemr_value"]) for each in rows) == list(range(200))


async def test_what_has_rows_of_its_own_is_not_noted(route: Route) -> None:
    links = [{"other": {"reference": f"Patient/{n}"}, "type": "seealso"} for n in range(5)]
    for n in range(5):
        resource = route.fhir_double.add({"resourceType": "Patient", "id": str(n)})
        await mirroring.mirror_resource(route.mirror, WorkItem("others", resource=resource))
    numbers = [{"system": "urn:mrn", "value": str(n)} for n in range(5)]
    noted = await mirror(route, {**NAMED, "link": links, "identifier": numbers})
    assert noted.notes == ()
    assert len(await route.dataverse_double.rows("msemr_contactlinks")) == 5


# --- maps that do not fit ------------------------------------------------------------------------

ADDITION = """adds_to = "Patient"

[[attribute]]
column = "msemr_nosuchcolumn"
path = "gender"

[[attribute]]
column = "jobtitle"
path = "name.use.frist()"
"""


def adding(route: Route, folder: Path, text: str, *fixed: str) -> Maps:
    """The maps with an organisation's own file, `fixed` being replaced in it."""
    for wrong, right in zip(fixed[::2], fixed[1::2], strict=True):
        text = text.replace(wrong, right)
    (folder / "own.toml").write_text(text, "utf-8")
    return load.load_maps("healthcare", None, folder)


async def requeued(route: Route, maps: Maps) -> str:
    """Why a patient waits for an operator."""
    resource = route.fhir_double.add({"resourceType": "Patient", "id": ID})
    it = replace(route.mirror, maps=maps.entities, broken_maps=maps.broken)
    await mirroring.mirror_resource(it, WorkItem(DELIVERY, resource=resource))
    ((_, delay),) = route.queued(MIRROR_QUEUE)
    assert delay == 60
    assert await route.dataverse_double.contacts() == []
    (noted,) = [each for each in route.activity.entries if each.status == "requeued"]
    return "; ".join(noted.notes)


async def test_a_broken_map_is_told_with_its_file_and_line(route: Route, tmp_path: Path) -> None:
    why = await requeued(route, adding(route, tmp_path, ADDITION))
    assert why == "own.toml:7: jobtitle: FHIRPath has no function frist()"


async def test_a_column_that_the_tenant_lacks_is_told_with_file_and_line(
    route: Route, tmp_path: Path
) -> None:
    maps = adding(route, tmp_path, ADDITION, "frist", "first")
    assert await requeued(route, maps) == "own.toml:3: contact has no column msemr_nosuchcolumn"


REQUIRED = {"type": "String", "schemaName": "new_Ward", "label": "Ward", "maxLength": 20}
WARD = 'adds_to = "Patient"\n[[attribute]]\ncolumn = "new_ward"\npath = "language"\n'


@pytest.fixture
async def demanding(route: Route) -> AsyncIterator[Route]:
    """An organisation with a column that must be filled."""
    columns = {"new_ward": {**REQUIRED, "required": "systemrequired"}}
    dataverse = DataverseDouble({"contact": {"columns": columns}})
    ends = {
        "journal": route.journal,
        "queue_sender": route.queue_sender,
        "guard_store": route.guard_store,
    }
    async with routed(route.fhir_double, dataverse, route.clock, **ends) as found:
        yield found
    dataverse.app.close()


async def test_a_required_column_that_no_map_fills_is_told_with_the_file(demanding: Route) -> None:
    why = await requeued(demanding, load.load_maps("healthcare"))
    assert why == "patient.toml: contact.new_ward is required, and no attribute fills it"


async def test_a_required_column_without_a_value_is_told_with_file_and_line(
    demanding: Route, tmp_path: Path
) -> None:
    """Dataverse answers with a code, and does not say which column."""
    demanding.maps = adding(demanding, tmp_path, WARD).entities
    demanding.dataverse_double.will_fail(
        kind="status", status=400, code="0x80040203", method="PATCH"
    )
    noted = await mirror(demanding, NAMED)
    assert (noted.action, noted.notes) == (
        "refused",
        (
            "new_ward: the column is required and has no value @ language (own.toml:2)",
            "answered 400 0x80040203",
        ),
    )
    demanding.fhir_double.delete(f"Patient/{ID}")
    assert (await mirror(demanding, {**NAMED, "language": "de"})).notes == ()
