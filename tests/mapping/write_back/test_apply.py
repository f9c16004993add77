"""Columns written back into a resource: what changes, what stays, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from integration.core import decimal_json
from integration.core.errors import Rejected
from integration.mapping.model import Kind, Lookup
from integration.mapping.write_back.apply import create_resource, explain_unwritable, write_columns
from integration.mapping.write_back.inverse_paths import invert_path
from tests.builders import TODAY
from tests.mapping.write_back.writable import build_attribute, build_columns, build_entity

SCT = "http://snomed.info/sct"
STATUS = "http://terminology.hl7.org/CodeSystem/condition-clinical"

CONDITION = build_entity(
    "Condition",
    [build_attribute("status", f"clinicalStatus.coding.where(system = '{STATUS}').code", Kind.CHOICE,
           choices={"active": (1,), "resolved": (2, 3), "remission": (2,)}),
    build_attribute("code", f"code.coding.where(system = '{SCT}').code"),
    build_attribute("display", f"code.coding.where(system = '{SCT}').display"),
    build_attribute("text", "code.text", max_length=20),
    build_attribute("severity", "severity.coding.first().code"),
    build_attribute("severitysystem", "severity.coding.first().system"),
    build_attribute("bodysite", "bodySite.coding.first().code"),
    build_attribute("category", "category.coding.where(system = 'urn:c').code"),
    build_attribute("subject", "subject", Kind.LOOKUP, target="Patient"),
    build_attribute("asserter", "asserter", Kind.LOOKUP, target="Practitioner"),
    build_attribute("asserterpatient", "asserter", Kind.LOOKUP, target="Patient"),
    build_attribute("onset", "onset.ofType(dateTime)", Kind.DATETIME),
    build_attribute("onsetday", "onset.ofType(dateTime)", Kind.DATE),
    build_attribute("onsettext", "onset.ofType(string)"),
    build_attribute("onsetage", "onset.ofType(Age).value", type_="decimal"),
    build_attribute("ageunit", "onset.ofType(Age).unit"),
    build_attribute("agecode", "onset.ofType(Age).code"),
    build_attribute("recorded", "recordedDate", Kind.DATETIME),
    build_attribute("note", "note.text", type_="memo"),
    build_attribute("second", "note[1].text"),
    build_attribute("extended", "extension('urn:e').value.ofType(string)"),
    build_attribute("label", "code", Kind.CONCEPT),
    build_attribute("fixed", None, Kind.DEFAULT),
    build_attribute("joined", "note.text.join(' ')"),
    build_attribute("readonly", "recorder.display", write=False)],
)  # fmt: skip

PATIENT = build_entity(
    "Patient",
    [build_attribute("family", "%official.family"),
    build_attribute("given", "%official.given.first()"),
    build_attribute("anygiven", "name.given.first()"),
    build_attribute("phone", "telecom.where(system = 'phone' and use = 'home').value"),
    build_attribute("mail", "telecom.where(system = 'email').value"),
    build_attribute("rank1", "telecom.where(rank = 1).value"),
    build_attribute("record", "identifier.where(type.coding.code = 'MR').value"),
    build_attribute("active", "active", Kind.CHOICE, choices={"true": (0,), "false": (1,)}, default=0),
    build_attribute("living", "active", type_="boolean"),
    build_attribute("birth", "birthDate", Kind.DATE),
    build_attribute("births", "multipleBirth.ofType(integer)", type_="integer"),
    build_attribute("contact", "contact.name.family"),
    build_attribute("doctor", "generalPractitioner.where(reference.startsWith('Practitioner/'))",
           Kind.LOOKUP)],
    variables={"official": "name.where(use = 'official').first()"},
)  # fmt: skip


def build_condition(**elements: Any) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "id": "1",
        "subject": {"reference": "Patient/1"},
        **elements,
    }


def build_patient(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "1", **elements}


def write(resource: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
    """The resource after the write, which leaves the one that was given alone."""
    map_ = PATIENT if resource["resourceType"] == "Patient" else CONDITION
    before = decimal_json.encode(resource)
    result = write_columns(map_, resource, changes, build_columns(map_), today=TODAY)
    assert decimal_json.encode(resource) == before
    return result


def catch_refusal(resource: dict[str, Any], status: int = 422, /, **changes: Any) -> str:
    """Why a write is refused: the column, the reason and the element."""
    with pytest.raises(Rejected) as caught:
        write(resource, **changes)
    assert caught.value.status == status
    (issue,) = caught.value.issues
    return f"{issue.text} @ {issue.expression}"


def build_coding(code: str, system: str = SCT, **more: Any) -> dict[str, Any]:
    return {"system": system, "code": code, **more}


# -- what stays ----------------------------------------------------------------------------------


def test_what_a_column_shows_already_changes_nothing_at_all() -> None:
    resource = build_condition(
        onsetDateTime="2020-05-05T10:00:00.250+02:00",
        code={"coding": [build_coding("1", display=" a ")], "text": "t"},
    )
    given = {"onset": datetime(2020, 5, 5, 8, tzinfo=UTC), "display": "a", "text": "t"}
    assert write(resource, **given) is resource


def test_a_number_keeps_its_digits_where_it_means_the_same() -> None:
    resource = build_condition(onsetAge={"value": Decimal("1.10"), "unit": "a"})
    assert write(resource, onsetage=Decimal("1.1")) is resource
    assert str(write(resource, onsetage=Decimal("1.20"))["onsetAge"]["value"]) == "1.20"


def test_elements_that_no_column_names_stay_and_so_does_the_order_of_all() -> None:
    text = (
        b'{"id":"1","onsetAge":{"code":"a","value":1.10,"id":"e"},"resourceType":"Condition",'
        b'"x":{"y":[1.00,null,{"z":{}}]},"note":[{"time":"2020","text":"a"},{"text":"b"}]}'
    )
    new = write(decimal_json.decode(text), onsetage=Decimal("2.50"), note="c")
    changes = text.replace(b"1.10", b"2.50").replace(b'"a"}', b'"c"}')
    assert decimal_json.encode(new) == changes


def test_what_is_said_of_a_value_beside_it_goes_with_the_value() -> None:
    reason = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason"}]}
    there = build_patient(_birthDate=reason, name=[{"use": "official", "_family": reason}])
    new = write(there, birth=datetime(2020, 1, 2, tzinfo=UTC))
    assert new == build_patient(birthDate="2020-01-02", name=there["name"])
    assert write(there, birth=None) is there


def test_in_a_list_only_what_is_said_of_the_written_value_goes() -> None:
    name = {"use": "official", "given": ["a", "b"], "_given": [{"id": "1"}, {"id": "2"}]}
    new = write(build_patient(name=[name]), given="c")
    assert new["name"] == [{**name, "given": ["c", "b"], "_given": [None, {"id": "2"}]}]
    reason = {"use": "official", "given": [None, "b"], "_given": [{"id": "1"}, None]}
    assert write(build_patient(name=[reason]), given="c")["name"][0]["given"] == [None, "c"]
    only = {"use": "official", "_given": [{"id": "1"}]}
    assert write(build_patient(name=[only]), given="c")["name"] == [
        {"use": "official", "given": ["c"]}
    ]


# -- where a value goes --------------------------------------------------------------------------


def test_a_value_is_written_over_the_one_that_the_column_shows() -> None:
    resource = build_patient(name=[{"use": "usual"}, {"given": ["a", "b"]}])
    assert write(resource, anygiven="c")["name"] == [{"use": "usual"}, {"given": ["c", "b"]}]


def test_without_a_value_the_first_item_gets_it() -> None:
    resource = build_patient(name=[{"use": "usual"}, {"use": "old"}])
    assert write(resource, anygiven="c")["name"][0] == {"use": "usual", "given": ["c"]}


def test_an_item_is_made_as_the_condition_says() -> None:
    resource = build_patient(telecom=[{"system": "phone", "use": "work", "value": "1"}])
    new = write(resource, phone="2", mail="3", rank1="4", family="F", record="5")
    assert new["telecom"][1:] == [
        {"system": "phone", "use": "home", "value": "2"},
        {"system": "email", "value": "3"},
        {"rank": 1, "value": "4"},
    ]
    assert new["name"] == [{"use": "official", "family": "F"}]
    assert new["identifier"] == [{"type": {"coding": [{"code": "MR"}]}, "value": "5"}]
    assert write(new, phone=None, mail=None, rank1=None, family=None, record=None) == resource


def test_an_item_by_number_is_made_only_after_those_before_it() -> None:
    assert "second:" in catch_refusal(build_condition(), second="b")
    resource = build_condition(note=[{"text": "a"}])
    assert write(resource, second="b")["note"] == [{"text": "a"}, {"text": "b"}]
    assert write(build_condition(), second="b", note="a")["note"] == [{"text": "a"}, {"text": "b"}]


def test_an_extension_is_found_by_its_url_or_made() -> None:
    other = {"url": "urn:o", "valueCode": "x"}
    new = write(build_condition(extension=[other]), extended="a")
    assert new["extension"] == [other, {"url": "urn:e", "valueString": "a"}]
    assert write(new, extended=None)["extension"] == [other]


def test_a_value_of_one_type_replaces_none_of_another_unless_that_is_cleared_as_well() -> None:
    resource = build_condition(onsetAge={"value": 3}, _onsetString={"id": "1"})
    moment = datetime.fromisoformat("2020-01-02T03:04:05Z")
    with pytest.raises(Rejected, match="onset: there is onsetAge, which this would replace"):
        write(resource, onset=moment)
    new = write(resource, onset=moment, onsetage=None)
    assert new == build_condition(onsetDateTime="2020-01-02T03:04:05Z")
    assert write(resource, onsettext="child", onsetage=None) == build_condition(onsetString="child")


# -- codes, concepts, units, references ----------------------------------------------------------


def test_a_concept_with_another_code_says_nothing_of_the_old_one() -> None:
    other = build_coding("X", "urn:icd")
    resource = build_condition(
        code={"coding": [other, build_coding("1", display="one", version="v")], "text": "t"}
    )
    assert write(resource, code="2")["code"] == {"coding": [build_coding("2")]}
    assert write(resource, code="2", text="two")["code"]["text"] == "two"
    new = write(resource, display="two", text="t", code="2")["code"]
    assert new == {"coding": [build_coding("2", display="two")], "text": "t"}


def test_a_code_beside_others_adds_to_them() -> None:
    other = build_coding("X", "urn:icd")
    resource = build_condition(code={"coding": [other], "text": "t"})
    assert write(resource, code="2")["code"] == {"coding": [other, build_coding("2")], "text": "t"}


def test_a_choice_is_all_that_a_concept_says() -> None:
    resource = build_condition(
        clinicalStatus={"coding": [build_coding("i", "urn:own")], "text": "inactive"}
    )
    assert write(resource, status=1)["clinicalStatus"] == {
        "coding": [build_coding("active", STATUS)]
    }


def test_another_code_where_concepts_repeat_is_another_concept() -> None:
    resource = build_condition(category=[{"coding": [build_coding("x", "urn:d")]}])
    new = write(resource, category="y")
    assert new["category"] == [*resource["category"], {"coding": [build_coding("y", "urn:c")]}]
    assert write(new, category=None) == resource


def test_a_code_keeps_its_system_only_where_a_column_shows_it() -> None:
    resource = build_condition(
        severity={"coding": [build_coding("1")]}, bodySite=[{"coding": [build_coding("1")]}]
    )
    new = write(resource, severity="2", bodysite="2")
    assert new["severity"] == {"coding": [build_coding("2")]}
    assert new["bodySite"] == [{"coding": [{"code": "2"}]}]


def test_a_code_of_the_present_option_stays_and_else_the_first_is_taken() -> None:
    resource = build_condition(clinicalStatus={"coding": [build_coding("remission", STATUS)]})
    assert write(resource, status=2) is resource
    assert write(build_condition(), status=2)["clinicalStatus"]["coding"][0]["code"] == "resolved"
    assert catch_refusal(resource, 400, status=9) == (
        "status: the value is not an option of the column @ Condition.clinicalStatus.coding.code"
    )


def test_a_code_that_is_cleared_takes_its_concept_along_but_for_what_is_written() -> None:
    resource = build_condition(
        code={"coding": [build_coding("1"), build_coding("X", "urn:icd")], "text": "t"}
    )
    assert write(resource, code=None) == build_condition()
    assert write(resource, code=None, text="u") == build_condition(code={"text": "u"})
    assert write(resource, code=None, text="t") == build_condition(code={"text": "t"})


def test_another_unit_has_another_code() -> None:
    resource = build_condition(onsetAge={"value": 1, "unit": "a", "system": "urn:u", "code": "a"})
    new = write(resource, ageunit="mo")
    assert new["onsetAge"] == {"value": 1, "unit": "mo", "system": "urn:u"}


def test_another_code_of_a_unit_is_another_unit() -> None:
    resource = build_condition(
        onsetAge={"value": 1, "unit": "year", "system": "urn:u", "code": "a"}
    )
    new = write(resource, agecode="mo")
    assert new["onsetAge"] == {"value": 1, "system": "urn:u", "code": "mo"}
    both = write(resource, agecode="mo", ageunit="month")
    assert both["onsetAge"] == {"value": 1, "unit": "month", "system": "urn:u", "code": "mo"}


def test_a_condition_is_made_true_of_what_is_there_unless_it_says_something_else() -> None:
    map_ = build_entity(
        "Condition", [build_attribute("code", "onset.ofType(Age).where(system = 'urn:u').code")]
    )
    resource = build_condition(onsetAge={"value": 1})
    new = write_columns(map_, resource, {"code": "a"}, build_columns(map_), today=TODAY)
    assert new["onsetAge"] == {"value": 1, "system": "urn:u", "code": "a"}
    other = build_condition(onsetAge={"value": 1, "system": "urn:other", "code": "b"})
    with pytest.raises(Rejected, match="code: FHIR has another value here"):
        write_columns(map_, other, {"code": "a"}, build_columns(map_), today=TODAY)


def test_a_reference_is_written_whole() -> None:
    resource = build_condition(subject={"reference": "Patient/1", "display": "D", "identifier": {}})
    new = write(resource, subject=Lookup("Patient/2"))
    assert new["subject"] == {"reference": "Patient/2"}
    assert catch_refusal(resource, 400, subject=Lookup("Device/2")) == (
        "subject: FHIR allows no reference to Device here @ Condition.subject"
    )
    assert "the column is for rows of Patient" in catch_refusal(
        resource, 400, subject=Lookup("Group/2")
    )


def test_one_reference_has_a_column_for_each_type() -> None:
    resource = build_condition(asserter={"reference": "Patient/1"})
    new = write(resource, asserter=Lookup("Practitioner/2"), asserterpatient=None)
    assert new["asserter"] == {"reference": "Practitioner/2"}
    assert write(resource, asserter=None) is resource


def test_a_reference_is_found_by_the_type_in_it() -> None:
    resource = build_patient(generalPractitioner=[{"reference": "Organization/1"}])
    new = write(resource, doctor=Lookup("Practitioner/2"))
    assert new["generalPractitioner"][1] == {"reference": "Practitioner/2"}
    assert "doctor:" in catch_refusal(resource, doctor=Lookup("Organization/2"))


# -- days, moments, numbers, truths --------------------------------------------------------------


def test_a_day_is_that_of_the_instant_in_utc() -> None:
    moment = datetime(2020, 5, 6, 1, tzinfo=timezone(timedelta(hours=2)))
    assert write(build_patient(), birth=moment)["birthDate"] == "2020-05-05"
    resource = build_condition(onsetDateTime="2020-05-05T23:30:00-08:00")
    assert write(resource, onsetday=datetime(2020, 5, 5, tzinfo=UTC)) is resource
    new = write(resource, onsetday=datetime(2020, 5, 7, tzinfo=UTC))
    assert new["onsetDateTime"] == "2020-05-07"


def test_an_instant_has_fractions_only_when_there_are() -> None:
    at = datetime.fromisoformat("2020-05-06T01:02:03.040Z")
    assert write(build_condition(), recorded=at)["recordedDate"] == "2020-05-06T01:02:03.040Z"
    whole = at.replace(microsecond=0)
    assert write(build_condition(), recorded=whole)["recordedDate"] == "2020-05-06T01:02:03Z"


def test_booleans_and_numbers_are_written_as_such() -> None:
    assert write(build_patient(), living=False, births=2) == build_patient(
        active=False, multipleBirthInteger=2
    )
    assert write(build_patient(), active=1)["active"] is False
    assert "living: " in catch_refusal(build_patient(active=True), 400, living=1)
    assert write(build_patient(active=False), active=None) == build_patient()
    assert write(build_patient(), active=0) == build_patient()


@pytest.mark.parametrize(
    ("column_", "value"),
    [
        ("family", ""),
        ("family", " \t"),
        ("family", "a\x00"),
        ("family", "a\ud800"),
        ("family", "x" * 101),
        ("family", 1),
        ("births", 2**31),
        ("births", True),
        ("births", "2"),
        ("births", Decimal("1.5")),
        ("living", 1),
        ("birth", datetime(2020, 1, 1)),  # noqa: DTZ001
        ("birth", "2020-01-01"),
        ("doctor", "Practitioner/1"),
        ("active", "true"),
    ],
)
def test_what_fhir_or_the_column_cannot_hold_is_refused(column_: str, value: Any) -> None:
    refusal = catch_refusal(build_patient(), 400, **{column_: value})
    assert refusal.startswith(f"{column_}: ")
    assert str(value).strip() == "" or str(value) not in refusal.replace(column_, "")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1.005"])
def test_a_number_that_the_column_cannot_hold_is_refused(number: str) -> None:
    assert "onsetage: " in catch_refusal(build_condition(), 400, onsetage=Decimal(number))


def test_an_instant_before_the_calendar_of_dataverse_is_refused() -> None:
    assert "recorded: " in catch_refusal(
        build_condition(), recorded=datetime(1700, 1, 1, tzinfo=UTC)
    )


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["label", "fixed", "joined", "readonly", "nothing"])
def test_a_column_that_cannot_be_written_is_refused(name: str) -> None:
    assert catch_refusal(build_condition(), 400, **{name: "x"}) == (
        f"{name}: the column cannot be written @ Condition"
    )


def test_what_fhir_requires_is_not_cleared() -> None:
    assert catch_refusal(build_condition(), subject=None) == (
        "subject: FHIR requires the element @ Condition.subject"
    )


def test_what_would_leave_a_required_element_empty_is_not_cleared() -> None:
    map_ = build_entity(
        "Observation",
        [build_attribute("code", "code.coding.code"), build_attribute("text", "code.text")],
    )
    resource = {"resourceType": "Observation", "id": "1", "code": {"coding": [{"code": "a"}]}}
    with pytest.raises(Rejected, match="code: FHIR requires the element") as caught:
        write_columns(map_, resource, {"code": None}, build_columns(map_), today=TODAY)
    assert caught.value.issues[0].expression == "Observation.code"
    new = write_columns(
        map_, resource, {"code": None, "text": "t"}, build_columns(map_), today=TODAY
    )
    assert new["code"] == {"text": "t"}


def test_what_would_show_the_next_is_not_cleared() -> None:
    resource = build_condition(note=[{"text": "a"}, {"text": "b"}])
    assert "note: FHIR has more than one value" in catch_refusal(resource, note=None)
    assert write(resource, second=None)["note"] == [{"text": "a"}]
    assert write(resource, second=None, note=None) == build_condition()


def test_one_of_several_required_items_is_cleared() -> None:
    map_ = build_entity(
        "AllergyIntolerance", [build_attribute("second", "reaction.manifestation[1].text")]
    )
    reaction = {"manifestation": [{"text": "a"}, {"text": "b"}]}
    resource = {"resourceType": "AllergyIntolerance", "id": "1", "reaction": [reaction]}
    new = write_columns(map_, resource, {"second": None}, build_columns(map_), today=TODAY)
    assert new["reaction"] == [{"manifestation": [{"text": "a"}]}]


def test_an_element_of_two_columns_is_cleared_by_both() -> None:
    resource = build_condition(onsetDateTime="2020-01-01T00:00:00Z")
    assert write(resource, onset=None, onsetday=None) == build_condition()


def test_text_of_which_the_column_shows_a_part_is_not_written_over() -> None:
    resource = build_condition(code={"text": "x" * 21})
    assert "text: FHIR holds more than the column shows" in catch_refusal(resource, text="y")
    assert write(resource, text="x" * 20) is resource
    assert write(resource, text=None) == build_condition()


def test_objects_that_became_empty_go_and_others_stay() -> None:
    resource = build_patient(contact=[{"name": {"family": "a"}}, {"gender": "male"}])
    assert write(resource, contact=None)["contact"] == [{"gender": "male"}]
    assert write(build_patient(contact=resource["contact"][:1]), contact=None) == build_patient()


@pytest.mark.parametrize(
    "elements",
    [
        {"name": {"use": "official", "family": "a"}},
        {"name": "a"},
        {"name": ["a"]},
        {"name": [[{"use": "official"}]]},
        {"name": [{"use": "official", "family": {"a": 1}}]},
        {"name": [{"use": "official", "family": ["a"]}]},
        {"name": [{"use": ["official"], "family": "a"}]},
    ],
)
def test_what_is_not_as_fhir_defines_it_is_refused(elements: dict[str, Any]) -> None:
    assert catch_refusal(build_patient(**elements), family="b").startswith(
        "family: the element is not as FHIR defines"
    )


def test_what_is_not_as_fhir_defines_it_is_not_cleared() -> None:
    resource = build_patient(name={"use": "official", "family": "a"})
    assert catch_refusal(resource, family=None).startswith(
        "family: the element is not as FHIR defines"
    )


# -- new resources, and what a map says ----------------------------------------------------------


def test_a_new_resource_has_the_constants_of_its_map_and_what_was_written() -> None:
    constant: Mapping[str, Any] = {"clinicalStatus": {"coding": [build_coding("active", STATUS)]}}
    map_ = build_entity("Condition", [*CONDITION.attributes], create=constant)
    given = {"subject": Lookup("Patient/2"), "text": "t", "code": None, "status": None}
    assert create_resource(map_, "new", given, build_columns(map_), today=TODAY) == {
        "resourceType": "Condition",
        "id": "new",
        **constant,
        "subject": {"reference": "Patient/2"},
        "code": {"text": "t"},
    }
    other = create_resource(map_, "new", {"status": 2}, build_columns(map_), today=TODAY)
    assert other["clinicalStatus"] == {"coding": [build_coding("resolved", STATUS)]}
    assert constant == {"clinicalStatus": {"coding": [build_coding("active", STATUS)]}}


@pytest.mark.parametrize(
    "path",
    [
        "name",
        "name.given.skip(1)",
        "name.given.last()",
        "name.given.join(' ')",
        "name.family | name.text",
        "iif(active, gender, language)",
        "name.where(use != 'old').family",
        "name.where(use.empty()).family",
        "name.where(use = 'a' or use = 'b').family",
        "name[0].where(use = 'a').family",
        "name.where(period = 'x').family",
        "name.where(use = 1).family",
        "deceased",
        "deceasedDateTime",
        "deceased.ofType(string)",
        "birthDate.extension('urn:x').value.ofType(string)",
        "modifierExtension('urn:x').value.ofType(string)",
        "modifierExtension.where(url = 'urn:x').value.ofType(string)",
        "meta.versionId",
        "text.status",
        "contained.id",
        "id",
        "%unknown.family",
        "%loop.family",
        "%resource.gender",
        "'a'",
        "name.",
        "nothing",
    ],
)
def test_a_path_that_does_not_lead_to_one_element_cannot_be_written(path: str) -> None:
    map_ = build_entity("Patient", [build_attribute("a", path)], variables={"loop": "%loop.name"})
    assert explain_unwritable(map_, map_.attributes[0])


@pytest.mark.parametrize("path", ["Patient.gender", "(name.first()).family", "gender.first()"])
def test_a_chain_may_be_written_in_several_ways(path: str) -> None:
    assert invert_path(path, "Patient")


@pytest.mark.parametrize(
    ("path", "kind", "type_"),
    [
        ("birthDate", Kind.COPY, "string"),
        ("birthDate", Kind.DATETIME, "string"),
        ("gender", Kind.COPY, "integer"),
        ("active", Kind.COPY, "string"),
        ("multipleBirth.ofType(integer)", Kind.COPY, "boolean"),
        ("managingOrganization", Kind.COPY, "string"),
        ("gender", Kind.LOOKUP, "string"),
        ("photo.data", Kind.COPY, "string"),
        ("gender", Kind.CONCEPT, "string"),
        ("maritalStatus.text", Kind.DATE, "string"),
    ],
)
def test_a_column_is_written_only_to_elements_of_its_type(
    path: str, kind: Kind, type_: str
) -> None:
    map_ = build_entity("Patient", [build_attribute("a", path, kind, type_=type_)])
    assert explain_unwritable(map_, map_.attributes[0])
