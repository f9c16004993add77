"""Each map of the toolkit becomes part of a file of ours, or a reason why not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.core.model import Column
from integration.mapping.engine import map_resource
from integration.mapping.load import parse_map
from integration.mapping.model import (
    AttributeMap,
    ChildRemoval,
    Concept,
    EntityMap,
    ExpandMap,
    Kind,
    Lookup,
)
from integration.mapping.toolkit.convert import convert
from integration.mapping.toolkit.findings import ConversionStatus, Finding, as_markdown, as_text
from integration.mapping.toolkit.rows import NewerColumns, Table, Toolkit, read_toolkit
from tests.builders import TODAY
from tests.mapping.toolkit.organisation import (
    ATTRIBUTE_MAP,
    CONCEPT,
    DEFAULT,
    ENTITY_MAP,
    EXPAND,
    LABEL,
    LATER,
    MAPPED,
    REFERENCE,
    RESOURCE,
    attribute,
    entity,
    key,
    one,
    resource,
    value,
    whole,
)

# A map has at least one attribute.
ANCHOR = attribute("Patient", "anchor", "$.id", msind_cdsattributetype="String")


def outcome(
    *rows: dict[str, Any], values: tuple[dict[str, Any], ...] = ()
) -> tuple[AttributeMap | None, Finding]:
    """Our attribute map of the first row, and what is told of it."""
    converted = convert(one(*rows, ANCHOR, values=values))
    maps = parse_map(converted.files["patient.toml"], "patient.toml").attributes
    column = rows[0]["msind_cdsattributename"].lower()
    told = next(each for each in converted.findings if each.id == rows[0][f"{ATTRIBUTE_MAP}id"])
    return next((each for each in maps if each.column == column), None), told


def refused(*rows: dict[str, Any], values: tuple[dict[str, Any], ...] = ()) -> str:
    found, told = outcome(*rows, values=values)
    assert found is None
    assert told.status is ConversionStatus.FAILED
    return "; ".join(told.reasons)


def patient(toolkit: Toolkit) -> EntityMap:
    return parse_map(convert(toolkit).files["patient.toml"], "patient.toml")


# -- Copy Data -----------------------------------------------------------------------------------


def test_a_copy_has_its_path_in_fhirpath() -> None:
    found, told = outcome(attribute("Patient", "LastName", "$.name[?(@.use=='usual')].family"))
    assert found == AttributeMap(
        column="lastname", kind=Kind.COPY, path="name.where(use = 'usual').family"
    )
    assert told.status is ConversionStatus.EXACT


@pytest.mark.parametrize(
    ("path", "column_type", "kind"),
    [
        ("$.birthDate", "DateTime", Kind.DATE),
        ("$.birthDate", "", Kind.DATE),
        ("$.birthDate", "String", Kind.COPY),
        ("$.deceasedDateTime", "DateTime", Kind.DATE),  # a contact keeps days
        ("$.multipleBirthInteger", "Integer", Kind.COPY),
    ],
)
def test_a_date_becomes_a_day_unless_the_column_keeps_text(
    path: str, column_type: str, kind: Kind
) -> None:
    found, told = outcome(attribute("Patient", "c", path, msind_cdsattributetype=column_type))
    assert found is not None
    assert (found.kind, told.status) == (kind, ConversionStatus.EXACT)


def encounter(tables: dict[str, Table]) -> tuple[Kind, ConversionStatus]:
    kit = read_toolkit(
        {
            RESOURCE: [resource("Encounter")],
            ENTITY_MAP: [entity("E", "msemr_encounter", "Encounter")],
            ATTRIBUTE_MAP: [attribute("E", "msemr_start", "$.period.start")],
        }
    )
    converted = convert(Toolkit(kit.entities, kit.newer_columns, tables))
    (found,) = parse_map(converted.files["encounter.toml"], "encounter.toml").attributes
    return found.kind, converted.findings[-1].status


def test_whether_another_table_keeps_days_is_what_its_metadata_say() -> None:
    days = {"msemr_encounter": Table("es", "id", frozenset({"msemr_start"}))}
    instants = {"msemr_encounter": Table("es", "id", frozenset())}
    assert encounter(days) == (Kind.DATE, ConversionStatus.EXACT)
    assert encounter(instants) == (Kind.DATETIME, ConversionStatus.EXACT)
    assert encounter({}) == (Kind.DATETIME, ConversionStatus.APPROXIMATE)


def test_what_is_no_value_is_not_copied() -> None:
    assert "whole HumanName" in refused(attribute("Patient", "c", "$.name[0]"))
    lookup = attribute("Patient", "c", "$.id", msind_cdsattributetype="Lookup")
    assert "lookup" in refused(lookup)
    choice = attribute("Patient", "c", "$.gender", msind_cdsattributetype="Picklist")
    assert "Mapped Value" in refused(choice)


def test_a_path_that_ends_at_a_list_gives_its_first_item_approximately() -> None:
    _, told = outcome(attribute("Patient", "c", "$.name[0].given"))
    assert told.status is ConversionStatus.APPROXIMATE
    assert "whole list" in told.reasons[0]


# -- Set Default Value ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column_type", "said", "constant"),
    [
        ("Picklist", "935000000", 935000000),
        ("Boolean", "Yes", True),
        ("Boolean", "0", False),
        ("String", "935", "935"),
        ("", "text", "text"),
    ],
)
def test_a_default_is_what_its_value_map_says(
    column_type: str, said: str, constant: object
) -> None:
    row = attribute("Patient", "c", None, DEFAULT, msind_cdsattributetype=column_type)
    found, told = outcome(row, values=(value("Patient", "c", "x", "", msind_staticvalue=said),))
    assert found == AttributeMap(column="c", kind=Kind.DEFAULT, default=constant)
    assert told.status is ConversionStatus.APPROXIMATE


def test_a_default_that_is_not_there_is_not_guessed() -> None:
    assert "not published" in refused(attribute("Patient", "c", None, DEFAULT))
    row = attribute("Patient", "c", None, DEFAULT, msind_cdsattributetype="Picklist")
    assert "whole number" in refused(row, values=(value("Patient", "c", "x", "text"),))


# -- Mapped Value --------------------------------------------------------------------------------


def gendered(column_type: str, *pairs: tuple[str, str]) -> tuple[AttributeMap | None, Finding]:
    row = attribute("Patient", "c", "$.gender", MAPPED, msind_cdsattributetype=column_type)
    return outcome(row, values=tuple(value("Patient", "c", *pair) for pair in pairs))


def test_values_become_choices() -> None:
    found, told = gendered("Picklist", ("male", "1"), ("female", "2"))
    assert found == AttributeMap(
        column="c", kind=Kind.CHOICE, path="gender", choices={"female": (2,), "male": (1,)}
    )
    assert told.status is ConversionStatus.EXACT


def test_many_choices_stand_below_each_other() -> None:
    found, _ = gendered("Picklist", *((f"code {n} 'ö'", str(n)) for n in range(40)))
    assert found is not None
    assert found.choices == {f"code {n} 'ö'": (n,) for n in range(40)}


def test_yes_and_no_become_choices_of_a_boolean() -> None:
    found, _ = gendered("Boolean", ("male", "true"), ("female", "No"))
    assert found is not None
    assert found.choices == {"male": (1,), "female": (0,)}


def test_the_truth_of_fhir_is_written_small() -> None:
    row = attribute("Patient", "c", "$.active", MAPPED, msind_cdsattributetype="State")
    pairs = (value("Patient", "c", "True", "0"), value("Patient", "c", "False", "1"))
    found, _ = outcome(row, values=pairs)
    assert found is not None
    assert found.choices == {"true": (0,), "false": (1,)}


def test_texts_are_spelt_in_fhirpath() -> None:
    found, told = gendered("String", ("male", "Mr"), ("female", "it's Mrs"))
    assert found is not None
    assert told.status is ConversionStatus.EXACT
    mapped = [found_text(found, gender) for gender in ("male", "female", "other")]
    assert mapped == ["Mr", "it's Mrs", None]


def found_text(attribute_map: AttributeMap, gender: str) -> object:
    text = convert(one(ANCHOR)).files["patient.toml"]
    text += f"\n[[attribute]]\ncolumn = 'c'\npath = {json.dumps(attribute_map.path)}\n"
    columns = {name: Column(name, "String") for name in ("c", "anchor")}
    return map_resource(
        parse_map(text, "x"), {"id": "1", "gender": gender}, tables(columns), today=TODAY
    ).values["c"]


def test_a_code_with_two_values_keeps_the_first_and_says_so() -> None:
    found, told = gendered("Picklist", ("male", "1"), ("male", "7"))
    assert found is not None
    assert found.choices == {"male": (1,)}
    assert told.status is ConversionStatus.APPROXIMATE


def test_values_that_no_choice_can_have_are_refused() -> None:
    row = attribute("Patient", "c", "$.gender", MAPPED, msind_cdsattributetype="Picklist")
    assert "no rows" in refused(row)
    assert "not an option" in refused(row, values=(value("Patient", "c", "male", "Mr"),))


# -- FK Reference, Lookup Codeable Concept -------------------------------------------------------


def test_a_reference_to_the_only_type_needs_no_filter() -> None:
    row = attribute("Patient", "c", "$.managingOrganization.reference", REFERENCE,
                    _msind_fhirresourcereference_value=key("Organization"))  # fmt: skip
    found, told = outcome(row)
    assert found == AttributeMap(
        column="c", kind=Kind.LOOKUP, path="managingOrganization.reference"
    )
    assert told.status is ConversionStatus.EXACT


@pytest.mark.parametrize("path", ["$.generalPractitioner[*].reference", "$.generalPractitioner"])
def test_a_reference_to_one_of_several_types_takes_that_type_alone(path: str) -> None:
    row = attribute("Patient", "c", path, REFERENCE,
                    _msind_fhirresourcereference_value=key("Practitioner"))  # fmt: skip
    kit = one(row, ANCHOR)
    links = ["Organization/1", "https://fhir.test/Practitioner/2", "Practitioner/3"]
    shown = {
        "id": "1",
        "generalPractitioner": [{"reference": link} for link in links],
    }
    columns = {"c": Column("c", "Lookup"), "anchor": Column("anchor", "String")}
    mapped = map_resource(patient(kit), shown, tables(columns), "https://fhir.test", today=TODAY)
    assert mapped.values["c"] == Lookup("Practitioner/2")


def test_a_lookup_of_what_is_no_reference_is_refused() -> None:
    assert "Reference" in refused(attribute("Patient", "c", "$.name[0].family", REFERENCE))


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("$.maritalStatus.coding[0].code", "maritalStatus.coding[0]"),
        ("$.maritalStatus.coding[0]", "maritalStatus.coding[0]"),
        ("$.maritalStatus", "maritalStatus"),
        ("$.communication[?(@.preferred==true)].language.coding[0].code",
         "communication.where(preferred = true).language.select(coding[0])"),
    ],
)  # fmt: skip
def test_a_concept_keeps_the_coding_for_its_name(path: str, ours: str) -> None:
    row = attribute("Patient", "c", path, CONCEPT, msind_codeableconcepttypevalue="935000068")
    found, told = outcome(row)
    assert found == AttributeMap(column="c", kind=Kind.CONCEPT, path=ours, concept=935000068)
    assert told.status is ConversionStatus.EXACT


def test_a_concept_without_its_type_is_refused() -> None:
    row = attribute("Patient", "c", "$.maritalStatus", CONCEPT, msind_codeableconcepttype="Marital")
    assert "type value" in refused(row)


# -- what is off, odd or twice -------------------------------------------------------------------


@pytest.mark.parametrize("off", [{"msind_disabled": True}, {"statecode": 1}])
def test_what_is_off_stays_off(off: dict[str, Any]) -> None:
    found, told = outcome(attribute("Patient", "c", "$.gender", **off))
    assert (found, told.status) == (None, ConversionStatus.OFF)


@pytest.mark.parametrize(
    ("element_map", "why"),
    [
        (None, "no element map"),
        ("", "no element map"),
        ("{", "its element map is JSON that ends too early"),
        ('{"c": {}}', "no path (s)"),
        ('{"s": 1}', "no path (s)"),
        ("name[0].family", "not JSON"),
    ],
)
def test_an_element_map_that_cannot_be_read_says_why(element_map: str | None, why: str) -> None:
    assert why in refused(attribute("Patient", "c", None, msind_fhirelementmap=element_map))


def test_a_bare_path_is_an_element_map_too() -> None:
    found, _ = outcome(attribute("Patient", "c", None, msind_fhirelementmap="$.gender"))
    assert found == AttributeMap(column="c", kind=Kind.COPY, path="gender")


def test_a_column_is_mapped_once() -> None:
    second = attribute("Patient", "anchor", "$.gender", msind_name="z",
                       msind_updateserviceattributemapid=key("second"))  # fmt: skip
    kit = one(ANCHOR, second)
    fates = [told.status for told in convert(kit).findings if told.column == "contact.anchor"]
    assert fates == [ConversionStatus.EXACT, ConversionStatus.FAILED]


def test_what_the_relay_fills_itself_has_no_map() -> None:
    found, told = outcome(attribute("Patient", "msemr_azurefhirid", "$.id"))
    assert (found, told.status) == (None, ConversionStatus.EXACT)
    assert "itself" in refused(attribute("Patient", "contactid", "$.id"))


def test_a_template_row_is_told_as_such() -> None:
    _, told = outcome(attribute("Patient", "c", "$.gender", msind_istemplate=True))
    assert told.status is ConversionStatus.APPROXIMATE


def test_an_unknown_action_is_refused() -> None:
    assert "action type" in refused(attribute("Patient", "c", "$.gender", 440670009))


def test_names_from_outside_stay_in_their_comment() -> None:
    name = 'x"\n[[attribute]]\ncolumn = "evil" \x1b[31m'
    row = attribute("Patient", "c", "$.name[?(@.use=='a\\u0022\\\\')].family", msind_name=name)
    converted = convert(one(row))
    assert [each.column for each in patient(one(row)).attributes] == ["c"]
    shown = "".join((*converted.files.values(), as_markdown(converted), *as_text(converted)))
    assert "\x1b" not in shown


# -- entity maps ---------------------------------------------------------------------------------


def fates(toolkit: Toolkit) -> dict[tuple[str, str], ConversionStatus]:
    return {(told.map, told.column): told.status for told in convert(toolkit).findings}


def test_a_map_that_is_disabled_is_written_and_not_enabled() -> None:
    converted = convert(read_toolkit(whole(), LATER))
    assert not parse_map(converted.files["practitioner.toml"], "practitioner.toml").enabled
    assert parse_map(converted.files["patient.toml"], "patient.toml").enabled


def test_a_resource_has_one_table() -> None:
    rows = {
        RESOURCE: [resource("Patient")],
        ENTITY_MAP: [
            entity("A", "account", "Patient", msind_disabled=True),
            entity("B", "contact", "Patient"),
            entity("C", "new_person", "Patient"),
        ],
        ATTRIBUTE_MAP: [attribute(name, "c", "$.gender") for name in "ABC"],
    }
    found = fates(read_toolkit(rows))
    assert found[("B", "contact")] is ConversionStatus.EXACT
    assert found[("A", "account")] is ConversionStatus.OFF
    assert found[("C", "new_person")] is found[("C", "new_person.c")] is ConversionStatus.FAILED


def test_files_are_called_as_the_shipped_ones_are() -> None:
    rows = {
        RESOURCE: [resource("RelatedPerson")],
        ENTITY_MAP: [entity("R", "msemr_relatedperson", "RelatedPerson")],
        ATTRIBUTE_MAP: [attribute("R", "c", "$.gender")],
    }
    assert [*convert(read_toolkit(rows)).files] == ["related_person.toml"]


@pytest.mark.parametrize("code", ["Nurse", "../Patient", "HumanName", "", "Resource"])
def test_what_is_no_resource_has_no_file(code: str) -> None:
    rows = {
        RESOURCE: [resource(code)],
        ENTITY_MAP: [entity("X", "contact", code)],
        ATTRIBUTE_MAP: [attribute("X", "c", "$.gender")],
    }
    converted = convert(read_toolkit(rows))
    assert converted.files == {}
    assert not converted.is_complete


def test_the_names_of_a_table_of_their_own_are_guessed_and_told() -> None:
    rows = {
        RESOURCE: [resource("Patient")],
        ENTITY_MAP: [entity("P", "new_party", "Patient")],
        ATTRIBUTE_MAP: [attribute("P", "c", "$.gender")],
    }
    kit = read_toolkit(rows)
    guessed = patient(kit)
    assert (guessed.entity_set, guessed.key) == ("new_parties", "new_partyid")
    assert fates(kit)[("P", "new_party")] is ConversionStatus.APPROXIMATE
    known = Toolkit(kit.entities, kit.newer_columns, {"new_party": Table("new_partyset", "new_id")})
    assert patient(known).entity_set == "new_partyset"
    assert fates(known)[("P", "new_party")] is ConversionStatus.EXACT


def test_a_map_that_heeds_creates_alone_is_told() -> None:
    rows = whole()
    rows[ENTITY_MAP][0]["msind_supportedmessages"] = "440670000"
    assert fates(read_toolkit(rows, LATER))[("Patient", "contact")] is ConversionStatus.APPROXIMATE


def test_every_row_is_told_of() -> None:
    rows = whole()
    for later in (LATER, NewerColumns()):
        told = {finding.id for finding in convert(read_toolkit(rows, later)).findings}
        assert told >= {row[f"{ATTRIBUTE_MAP}id"] for row in rows[ATTRIBUTE_MAP]}


def test_writing_back_is_told_of_once() -> None:
    (note,) = convert(read_toolkit(whole(), LATER)).notes
    assert "1 entity maps have it enabled, 1 attribute maps have a template" in note


# -- expansions ----------------------------------------------------------------------------------


def test_an_expansion_becomes_children() -> None:
    (found,) = patient(read_toolkit(whole(), LATER)).expands
    assert (found.path, found.table, found.parent) == (
        "identifier", "msemr_medicalidentifier", "msemr_patient",
    )  # fmt: skip
    assert found.match == ("msemr_identifiersystem", "msemr_value")
    assert found.remove is ChildRemoval.OURS
    assert [each.path for each in found.attributes] == ["system", "type.coding[0].code", "value"]


@pytest.mark.parametrize("missing", ["expansion_map", "parent_link", "matching"])
def test_an_expansion_whose_columns_are_not_known_says_which_to_name(missing: str) -> None:
    names = {name: getattr(LATER, name) for name in NewerColumns.__slots__ if name != missing}
    converted = convert(read_toolkit(whole(), NewerColumns(**names)))
    assert parse_map(converted.files["patient.toml"], "patient.toml").expands == ()
    assert any(
        f"--column {missing}=…" in why for told in converted.findings for why in told.reasons
    )
    assert not converted.is_complete


def test_an_expansion_is_known_by_its_label_too() -> None:
    rows = whole()
    row = next(row for row in rows[ATTRIBUTE_MAP] if row["msind_actiontype"] == EXPAND)
    row[f"msind_actiontype{LABEL}"] = "Expand"
    row["msind_cdsattributename"] = "n/a"
    assert len(patient(read_toolkit(rows, LATER)).expands) == 1


def test_an_expansion_without_its_match_is_not_carried_over_in_part() -> None:
    rows = whole()
    for row in rows[ATTRIBUTE_MAP]:
        if row["msind_cdsattributename"] == "msemr_value":
            row["msind_fhirelementmap"] = '{"s": "$..value"}'
    kit = read_toolkit(rows, LATER)
    assert patient(kit).expands == ()
    found = fates(kit)
    assert found[("Identifiers", "msemr_medicalidentifier.msemr_type")] is ConversionStatus.FAILED


def test_an_expansion_that_is_disabled_stays_off() -> None:
    rows = whole()
    rows[ENTITY_MAP][1]["msind_disabled"] = True
    kit = read_toolkit(rows, LATER)
    assert patient(kit).expands == ()
    assert fates(kit)[("Patient", "msemr_medicalidentifier")] is ConversionStatus.OFF


# -- the whole -----------------------------------------------------------------------------------


def tables(columns: dict[str, Column]) -> dict[str, dict[str, Column]]:
    books = {
        "msemr_azurefhirid": Column("msemr_azurefhirid", "String", max_length=38),
        "msemr_azurefhirversion": Column("msemr_azurefhirversion", "String"),
        "msemr_azurefhirlastupdatedon": Column("msemr_azurefhirlastupdatedon", "DateTime"),
    }
    return {"contact": {**books, **columns}}


def typed(attribute_map: AttributeMap) -> Column:
    types = {
        Kind.COPY: "String",
        Kind.DEFAULT: "Picklist",
        Kind.DATE: "DateTime",
        Kind.CHOICE: "Picklist",
        Kind.LOOKUP: "Lookup",
        Kind.CONCEPT: "Lookup",
    }
    return Column(attribute_map.column, types[attribute_map.kind], behavior="DateOnly")


def of(mapped: EntityMap | ExpandMap) -> dict[str, Column]:
    return {each.column: typed(each) for each in mapped.attributes}


def test_a_patient_becomes_the_rows_that_the_toolkit_would_have_made() -> None:
    entity_map = patient(read_toolkit(whole(), LATER))
    mapped = map_resource(
        entity_map,
        {
            "resourceType": "Patient",
            "id": "p",
            "name": [{"family": "Not"}, {"use": "usual", "family": "Chalmers", "given": ["Jim"]}],
            "gender": "male",
            "birthDate": "1974-12-25",
            "generalPractitioner": [{"reference": "Practitioner/d"}],
            "communication": [{"language": {"coding": [{"code": "de", "display": "German"}]}}],
            "identifier": [
                {"system": "urn:a", "value": "1", "type": {"coding": [{"code": "MR"}]}},
                {"system": "urn:b", "value": "2"},
            ],
        },
        tables(of(entity_map)) | {expand.table: of(expand) for expand in entity_map.expands},
        today=TODAY,
    )
    assert {name: mapped.values[name] for name in of(entity_map)} == {
        "lastname": "Chalmers",
        "firstname": "Jim",
        "gendercode": 1,
        "birthdate": "1974-12-25",
        "msemr_contacttype": 935000000,
        "msemr_generalpractioner": Lookup("Practitioner/d"),
        "msemr_communication1language": Concept(935000068, "de", "German", None),
        "nickname": "Jim",
    }
    assert [child.values for child in mapped.children] == [
        {"msemr_identifiersystem": "urn:a", "msemr_value": "1", "msemr_type": 935000003},
        {"msemr_identifiersystem": "urn:b", "msemr_value": "2", "msemr_type": None},
    ]


def test_the_report_has_a_line_for_each_map() -> None:
    converted = convert(read_toolkit(whole(), LATER))
    report = as_markdown(converted)
    lines = [line for line in report.splitlines() if line.startswith("| ")]
    assert len(lines) == len(converted.findings) + report.count("\n## ")
    assert "exactly: 13 · approximately: 3 · not: 3 · not, off in the toolkit: 1" in report
    assert [*as_text(converted)][-1] in report
