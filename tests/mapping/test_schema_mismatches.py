"""Where a map and the tables of a tenant do not fit, with the line of the map."""

from __future__ import annotations

from dataclasses import replace

import pytest

from integration.core.model import Column
from integration.mapping.load import parse_map
from integration.mapping.schema_mismatches import find_schema_mismatches

MAP = """resource = "Patient"
[row]
table = "contact"
entity_set = "contacts"
key = "contactid"
id_column = "fhirid"
version_column = "version"
updated_column = "updated"
[[attribute]]
column = "gender"
path = "gender"
kind = "choice"
choices = { male = 1, other = 9 }
default = 2
[[attribute]]
column = "born"
path = "birthDate"
kind = "date"
[[attribute]]
column = "died"
path = "deceased"
kind = "datetime"
[[attribute]]
column = "doctor"
path = "generalPractitioner.first()"
kind = "lookup"
[[attribute]]
column = "language"
path = "communication.language"
kind = "concept"
concept = 7
[[expand]]
path = "identifier"
table = "number"
entity_set = "numbers"
key = "numberid"
parent = "patient"
match = ["value"]
[[expand.attribute]]
column = "value"
path = "value"
"""
ENTITY = parse_map(MAP, "patient.toml")
CONTACT = {
    "contactid": Column("contactid", "Uniqueidentifier", required=True, enforced=True),
    "fhirid": Column("fhirid", "String", max_length=64),
    "version": Column("version", "String", max_length=50),
    "updated": Column("updated", "DateTime"),
    "gender": Column("gender", "Picklist", options=frozenset({1, 2})),
    "born": Column("born", "DateTime", behavior="DateOnly"),
    "died": Column("died", "DateTime", behavior="UserLocal"),
    "doctor": Column("doctor", "Lookup", targets={"contact": "Doctor"}),
    "language": Column("language", "Lookup", targets={"msemr_codeableconcept": "Language"}),
    "statecode": Column("statecode", "State", required=True, enforced=True),
}
NUMBER = {
    "numberid": Column("numberid", "Uniqueidentifier", required=True, enforced=True),
    "patient": Column(
        "patient", "Lookup", targets={"contact": "Patient"}, required=True, enforced=True
    ),
    "value": Column("value", "String", max_length=250, required=True, enforced=True),
}
TABLES = {"contact": CONTACT, "number": NUMBER}


def test_a_map_fits_tables_that_have_what_it_names() -> None:
    assert find_schema_mismatches(ENTITY, TABLES) == []


@pytest.mark.parametrize(
    ("column", "instead", "misfit"),
    [
        ("fhirid", None, "patient.toml: contact has no column fhirid"),
        ("contactid", None, "patient.toml: contact has no column contactid"),
        ("fhirid", Column("fhirid", "Integer"), "patient.toml: contact.fhirid is of the type Integer; it must be Memo or String"),
        ("fhirid", Column("fhirid", "String", max_length=35), "patient.toml: contact.fhirid holds 35 characters, but a GUID has 36"),
        ("updated", Column("updated", "String"), "patient.toml: contact.updated is of the type String; it must be DateTime"),
        ("gender", None, "patient.toml:9: contact has no column gender"),
        ("gender", Column("gender", "String"), "patient.toml:9: contact.gender is of the type String, which kind choice cannot fill"),
        ("gender", replace(CONTACT["gender"], writable_on_create=False, writable_on_update=False), "patient.toml:9: contact.gender cannot be written"),
        ("gender", replace(CONTACT["gender"], options=frozenset({2})), "patient.toml:9: contact.gender has none of the options in choices"),
        ("gender", replace(CONTACT["gender"], options=frozenset({1})), "patient.toml:9: contact.gender has no option for the default"),
        ("born", Column("born", "String"), "patient.toml:15: contact.born is of the type String, which kind date cannot fill"),
        ("died", replace(CONTACT["died"], behavior="DateOnly"), "patient.toml:19: contact.died keeps days only; use kind date"),
        ("doctor", Column("doctor", "String"), "patient.toml:23: contact.doctor is of the type String, which kind lookup cannot fill"),
        ("doctor", Column("doctor", "Lookup"), "patient.toml:23: contact.doctor points at no table"),
        ("language", CONTACT["doctor"], "patient.toml:27: contact.language is not a lookup of msemr_codeableconcept"),
        ("nickname", Column("nickname", "String", required=True, enforced=True), "patient.toml: contact.nickname is required, and no attribute fills it"),
    ],
)  # fmt: skip
def test_what_the_row_lacks_is_reported(column: str, instead: Column | None, misfit: str) -> None:
    columns = {name: column_ for name, column_ in CONTACT.items() if name != column}
    if instead is not None:
        columns[column] = instead
    assert find_schema_mismatches(ENTITY, {**TABLES, "contact": columns}) == [misfit]


@pytest.mark.parametrize(
    ("column", "instead", "misfit"),
    [
        ("numberid", None, "patient.toml:32: number has no column numberid"),
        ("patient", None, "patient.toml:32: number has no column patient"),
        ("patient", Column("patient", "Lookup", targets={"account": "A"}), "patient.toml:32: number.patient is not a lookup of contact"),
        ("value", None, "patient.toml:39: number has no column value"),
        ("value", Column("value", "DateTime"), "patient.toml:39: number.value is of the type DateTime, which kind copy cannot fill"),
        ("name", Column("name", "String", required=True, enforced=True), "patient.toml:32: number.name is required, and no attribute fills it"),
    ],
)  # fmt: skip
def test_what_a_child_lacks_is_reported(column: str, instead: Column | None, misfit: str) -> None:
    columns = {name: column_ for name, column_ in NUMBER.items() if name != column}
    if instead is not None:
        columns[column] = instead
    assert find_schema_mismatches(ENTITY, {**TABLES, "number": columns}) == [misfit]


def test_tables_that_are_not_there_are_reported() -> None:
    assert find_schema_mismatches(ENTITY, {}) == [
        "patient.toml: the organisation has no table contact",
        "patient.toml: the organisation has no table number",
    ]


def test_a_required_column_that_nobody_can_write_wants_nothing() -> None:
    generated = Column("number", "String", required=True, enforced=True, writable_on_create=False)
    assert (
        find_schema_mismatches(ENTITY, {**TABLES, "contact": {**CONTACT, "number": generated}})
        == []
    )
