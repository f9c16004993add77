"""Which FHIR search a $filter becomes, and why the rest of it becomes none.

A search narrows and never decides: what it finds is evaluated again. So each line here is either
exact (what is found is the answer), or a superset of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import unquote
from uuid import UUID

import pytest

from integration.fhir.search import build_path
from integration.mapping.load import parse_map
from integration.odata import filter as filters
from integration.odata import query
from integration.odata.addresses import Collection
from integration.virtual_tables.entity_type import MappedEntityType, build_entity_type
from integration.virtual_tables.query_plan import QueryPlan, plan_query, split_filter
from tests.virtual_tables.conftest import SHAPES

ANNA = UUID("1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11")
THEIRS = UUID("99999999-9999-4999-8999-999999999999")
PATIENT = "_msemr_subjectpatient_value"

# A table with one column for each rule, in which a text is at most 10 characters long.
WARDS = build_entity_type(
    parse_map(
        """
resource = "Location"

[row]
table = "abc_ward"
entity_set = "abc_wards"
key = "abc_wardid"
id_column = "fhirid"
version_column = "version"
updated_column = "updated"
routes = ["virtual"]
name_column = "name"

[[attribute]]
column = "name"
path = "name"
max_length = 10
search = "name"

[[attribute]]
column = "plain"
path = "description"
max_length = 10

[[attribute]]
column = "number"
path = "identifier.value.first()"
max_length = 10
search = "identifier"
search_type = "token"

[[attribute]]
column = "status"
path = "status"
kind = "choice"
choices = { active = 1, suspended = 2, inactive = 2 }
search = "status"
exact = true

[[attribute]]
column = "mode"
path = "mode"
kind = "choice"
choices = { instance = 1, kind = 2 }
default = 1
search = "mode"
exact = true

[[attribute]]
column = "kind"
path = "type.coding.first().code"
kind = "choice"
choices = { ER = 1, ICU = 2 }
search = "type"

[[attribute]]
column = "kindname"
path = "(type.text | type.coding.display).first()"
search = "type"
search_type = "text"

[[attribute]]
column = "kindtext"
path = "type.first().text"
search = "type"
search_type = "text"

[[attribute]]
column = "partof"
path = "partOf"
kind = "lookup"
target = "Location"
search = "partof"
exact = true

[[attribute]]
column = "open"
path = "extension('urn:open').value"
type = "boolean"
search = "open"
search_type = "token"
exact = true

[[attribute]]
column = "since"
path = "extension('urn:since').value"
kind = "datetime"
search = "since"
sort = true

[[attribute]]
column = "day"
path = "extension('urn:day').value"
kind = "date"
search = "day"

[[attribute]]
column = "opened"
path = "extension('urn:opened').value"
kind = "date"
partial = "first"
search = "opened"
sort = true

[[attribute]]
column = "beds"
path = "extension('urn:beds').value"
type = "integer"
search = "beds"
search_type = "number"
""",
        "ward.toml",
    )
)

TARGETS = {
    ("abc_wardid", ANNA): "w-1",
    ("_partof_value", ANNA): "w-1",
    ("_partof_value", THEIRS): "W2",
}


class Case(NamedTuple):
    """`how`: exact, narrowed, left (nothing is pushed), or nothing (no row can be found)."""

    filter: str
    search: str
    how: str


def condition(text: str, of: MappedEntityType = WARDS) -> filters.Expression:
    return filters.parse(text, of.type)


def list_keys(parsed: filters.Expression) -> set[tuple[str, UUID]]:
    return {pair for part in split_filter(parsed) for pair in part.keys}


def plan(
    parsed: filters.Expression | None,
    of: MappedEntityType = WARDS,
    target_ids: Mapping[tuple[str, UUID], str] = TARGETS,
) -> QueryPlan:
    return plan_query(query.Query(filter=parsed), split_filter(parsed), of, target_ids)


def describe(found: QueryPlan) -> tuple[str, str]:
    search = unquote(build_path(found.shown_type.resource, found.parameters)).partition("?")[2]
    if found.is_empty:
        return search, "nothing"
    if found.is_exact:
        return search, "exact"
    return search, "narrowed" if search else "left"


EXACT = "exact"
NARROWED = "narrowed"
LEFT = "left"
NOTHING = "nothing"

# --- equality -------------------------------------------------------------------------------------

EQUALITY = [
    # keys and ids
    Case(f"abc_wardid eq {ANNA}", "_id=w-1", EXACT),
    Case("fhirid eq 'w-1'", "_id=w-1", EXACT),
    Case("fhirid in ('w-1','W2')", "_id=w-1,W2", EXACT),
    Case("fhirid in ('w-1','no id')", "_id=w-1", EXACT),  # no resource has the other
    Case("fhirid eq 'no id'", "", NOTHING),
    # lookups
    Case(f"_partof_value eq {ANNA}", "partof=Location/w-1", EXACT),
    Case(f"_partof_value in ({ANNA},{THEIRS})", "partof=Location/w-1,Location/W2", EXACT),
    # choices: an option may stand for several codes, and a code for none
    Case("status eq 1", "status=active", EXACT),
    Case("status eq 2", "status=suspended,inactive", EXACT),
    Case("status in (1,2)", "status=active,suspended,inactive", EXACT),
    Case("status eq 3", "", NOTHING),
    Case("kind eq 1", "type=ER", NARROWED),  # the element has more codings than the one shown
    # texts: codes as they are, others by a part, without regard to case
    Case("number eq 'A-7'", "identifier=A-7", NARROWED),
    Case("number in ('A-7','a$b|c,d')", r"identifier=A-7,a\$b\|c\,d", NARROWED),
    Case("name eq 'Ward 7'", "name:contains=Ward 7", NARROWED),
    Case("name in ('A','B')", "name:contains=A,B", NARROWED),
    # yes and no
    Case("open eq true", "open=true", EXACT),
    Case("open", "open=true", EXACT),
    Case("open eq false", "open=false", EXACT),
    # several comparisons of one property are one search
    Case("status eq 1 or status eq 2", "status=active,suspended,inactive", EXACT),
    Case("name eq 'A' or name in ('B','C')", "name:contains=A,B,C", NARROWED),
]

# --- bounds ---------------------------------------------------------------------------------------

BOUNDS = [
    # A day earlier or later: an element may name its day in another time zone, or none.
    Case("since ge 2024-03-01T12:00:00Z", "since=ge2024-02-29", NARROWED),
    Case("since gt 2024-03-01T12:00:00Z", "since=ge2024-02-29", NARROWED),
    Case("since le 2024-03-01T12:00:00Z", "since=le2024-03-02", NARROWED),
    Case("since lt 2024-03-01T12:00:00Z", "since=le2024-03-02", NARROWED),
    Case("day eq 2024-03-01T00:00:00Z", "day=ge2024-02-29&day=le2024-03-02", NARROWED),
    Case(
        "since ge 2024-01-01T00:00:00Z and since lt 2024-02-01T00:00:00Z",
        "since=ge2023-12-31&since=le2024-02-02",
        NARROWED,
    ),
    Case("day ge 2024-03-01T01:00:00%2B02:00".replace("%2B", "+"), "day=ge2024-02-28", NARROWED),
    # The service keeps more than the second that a row shows.
    Case("updated gt 2024-03-01T12:00:00Z", "_lastUpdated=ge2024-03-01T11:59:59Z", NARROWED),
    Case(
        "updated eq 2024-03-01T12:00:00Z",
        "_lastUpdated=ge2024-03-01T11:59:59Z&_lastUpdated=le2024-03-01T12:00:01Z",
        NARROWED,
    ),
]

# --- parts of texts -------------------------------------------------------------------------------

PARTS = [
    Case("contains(name,'ard')", "name:contains=ard", NARROWED),
    Case("startswith(name,'Wa')", "name:contains=Wa", NARROWED),
    Case("endswith(name,'7')", "name:contains=7", NARROWED),
    Case("contains(tolower(name),'ard')", "name:contains=ard", NARROWED),
    Case("contains(name,'a,b')", r"name:contains=a\,b", NARROWED),
    # the name of a code: by its beginning alone
    Case("startswith(kindname,'Em')", "type:text=Em", NARROWED),
    Case("startswith(tolower(kindname),'em')", "type:text=em", NARROWED),
    Case("kindname eq 'Emerg'", "type:text=Emerg", NARROWED),
    Case("kindname in ('Emerg')", "type:text=Emerg", NARROWED),
    # a quick find: the same text in several columns of one element
    Case("startswith(kindname,'E') or startswith(kindtext,'E')", "type:text=E", NARROWED),
    Case("startswith(kindname,'E') or kindtext eq 'E'", "type:text=E", NARROWED),
]

# --- together -------------------------------------------------------------------------------------

TOGETHER = [
    Case("status eq 1 and open eq true", "status=active&open=true", EXACT),
    Case("status eq 1 and plain eq 'x'", "status=active", NARROWED),
    Case("status eq 1 and (plain eq 'x' or open)", "status=active", NARROWED),
    Case(f"_partof_value eq {ANNA} and status eq 3", "partof=Location/w-1", NOTHING),
    Case("status eq 1 and status eq 1", "status=active", EXACT),
]

# --- what is not pushed, and why ------------------------------------------------------------------

NOT_PUSHED = [
    # null: a search finds what is there
    Case("name eq null", "", LEFT),
    Case("status ne null", "", LEFT),
    Case("status in (1,null)", "", LEFT),
    # ne and not: of repeating elements a search would leave out too much
    Case("status ne 1", "", LEFT),
    Case("not (status eq 1)", "", LEFT),
    Case("not contains(name,'a')", "", LEFT),
    # or between different properties: FHIR has no such search
    Case("status eq 1 or open eq true", "", LEFT),
    Case("status eq 1 or (name eq 'A' and open)", "", LEFT),
    # a default is the value of rows whose resource has no such element
    Case("mode eq 1", "", LEFT),
    Case("mode in (1,2)", "", LEFT),
    Case("mode eq 2", "mode=kind", EXACT),
    # a text as long as the column may have been cut
    Case("name eq '1234567890'", "", LEFT),
    Case("number eq '1234567890'", "", LEFT),
    Case("contains(name,'1234567890')", "", LEFT),
    # how letters beyond ASCII are compared is each server's affair; blanks are trimmed
    Case("name eq 'Größe'", "", LEFT),
    Case("contains(name,'é')", "", LEFT),
    Case("name eq ''", "", LEFT),
    Case("name eq ' '", "", LEFT),
    Case("contains(name,' a')", "", LEFT),
    # of a code FHIR can search for the whole alone
    Case("contains(number,'7')", "", LEFT),
    # FHIR finds the name of a code by its beginning, and what it was asked for as one text
    Case("contains(kindname,'E')", "", LEFT),
    Case("endswith(kindname,'E')", "", LEFT),
    Case("kindname in ('E','I')", "", LEFT),
    Case("startswith(kindname,'E') or startswith(kindname,'I')", "", LEFT),
    Case("startswith(kindname,'E') or startswith(name,'E')", "", LEFT),
    Case("startswith(kindname,'E') or startswith(plain,'E')", "", LEFT),
    Case("startswith(plain,'E') or startswith(plain,'E')", "", LEFT),
    Case("startswith(kindname,'É')", "", LEFT),
    Case("startswith(kindname,'a,b')", "", LEFT),
    Case("startswith(kindname,' E')", "", LEFT),
    Case("startswith(kindname,'E ')", "", LEFT),
    # order of texts and numbers: no server's is ours
    Case("name gt 'A'", "", LEFT),
    Case("beds eq 7", "", LEFT),
    Case("beds gt 7", "", LEFT),
    # other things than a property compared with a constant
    Case("name eq plain", "", LEFT),
    Case("tolower(name) eq 'a'", "", LEFT),
    Case("'A' gt name", "", LEFT),
    # no search parameter
    Case("plain eq 'A'", "", LEFT),
    Case("contains(plain,'A')", "", LEFT),
    Case("version eq '3'", "", LEFT),
    # before the first moment and after the last there is no day left
    Case("since ge 0001-01-01T00:00:00Z", "", LEFT),
    # more alternatives than an address has room for
    Case(f"number in ({','.join(repr(str(n)) for n in range(51))})", "", LEFT),
]


@pytest.mark.parametrize(
    "case", [*EQUALITY, *BOUNDS, *PARTS, *TOGETHER, *NOT_PUSHED], ids=lambda case: case.filter[:60]
)
def test_a_filter_is_pushed_as_far_as_fhir_can_answer_it(case: Case) -> None:
    assert describe(plan(condition(case.filter))) == (case.search, case.how)


def test_no_filter_is_every_resource() -> None:
    assert describe(plan(None)) == ("", EXACT)


def test_fifty_alternatives_have_room() -> None:
    values = ",".join(f"'{n}'" for n in range(50))
    assert describe(plan(condition(f"number in ({values})")))[1] == NARROWED


def test_a_search_that_is_too_long_for_a_server_is_looked_at_here() -> None:
    values = " and ".join(f"number eq '|||||||{n:02}'" for n in range(40))
    found = plan(condition(f"({values}) and status eq 1"))
    parameters = describe(found)[0]
    assert 1000 < len(build_path("", found.parameters)) <= 6000
    assert "identifier" in parameters
    assert not found.is_exact
    assert found.unsearched == ("number",)


@pytest.mark.parametrize("character", ["\x00", "\x1f", "\x7f", "\t"])
def test_a_control_character_is_searched_for_by_no_server(character: str) -> None:
    for text in (f"number eq 'a{character}b'", f"contains(name,'a{character}b')"):
        assert plan(condition(text)).parameters == ()


def test_the_keys_that_a_condition_names_are_found_wherever_they_stand() -> None:
    text = f"not (_partof_value eq {ANNA}) or ({THEIRS} eq abc_wardid and status eq 1)"
    assert list_keys(condition(text)) == {("_partof_value", ANNA), ("abc_wardid", THEIRS)}


# --- the columns at fault -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("status eq 1", ()),
        ("status eq 1 and plain eq 'x'", ("plain",)),
        ("plain eq 'x' or beds gt 3", ("beds", "plain")),
        ("name eq null and open", ("name",)),
    ],
)
def test_what_makes_a_query_broad_is_named(text: str, names: tuple[str, ...]) -> None:
    assert plan(condition(text)).unsearched == names


@pytest.mark.parametrize(
    ("options", "is_gathered", "reasons"),
    [
        ("$filter=plain eq 'x'", False, ["plain"]),
        ("$skip=5000", False, ["$filter"]),
        ("$orderby=since", False, ["$orderby by since"]),
        ("$orderby=name,day", True, ["$orderby by name", "$orderby by day"]),
        ("$filter=plain eq 'x'&$orderby=name", True, ["plain"]),
        ("$filter=1 eq 2&$count=true", True, ["$filter"]),
        ("$filter=status eq 1&$count=true", False, ["$filter"]),
    ],
)
def test_a_plan_says_whether_it_gathers_and_what_makes_it_cost_much(
    options: str, is_gathered: bool, reasons: list[str]
) -> None:
    asked = query.parse(options.replace(" ", "%20"), Collection(WARDS.type))
    found = plan_query(asked, split_filter(asked.filter), WARDS, TARGETS)
    assert (found.is_gathered, found.cost_reasons) == (is_gathered, reasons)


def test_a_plan_maps_only_the_properties_that_it_needs() -> None:
    options = "$filter=plain%20eq%20'x'&$orderby=name&$select=number"
    asked = query.parse(options, Collection(WARDS.type))
    found = plan_query(asked, split_filter(asked.filter), WARDS, TARGETS)
    assert set(found.scanned_type.attributes) == {"plain", "name"}
    assert set(found.shown_type.attributes) == {"number"}


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "sorted_by"),
    [
        ("since", "since"),
        ("since desc", "-since"),
        ("updated desc", "-_lastUpdated"),
        ("since,updated", None),  # ties would be told apart by the server's own order
        ("day", None),  # the map does not say that a server's order is that of the column
        ("opened", "opened"),
        ("name", None),  # every server compares texts in its own way
        ("fhirid", None),
    ],
)
def test_an_order_is_fhir_s_where_the_map_says_that_it_is_the_same(
    order: str, sorted_by: str | None
) -> None:
    asked = query.parse(f"$orderby={order}", Collection(WARDS.type))
    assert plan_query(asked, (), WARDS, {}).sort == sorted_by


def test_only_the_order_of_a_column_of_days_may_differ_from_that_of_moments() -> None:
    slacks = {
        name: plan_query(
            query.parse(f"$orderby={name}", Collection(WARDS.type)), (), WARDS, {}
        ).slack.days
        for name in ("since", "opened", "updated")
    }
    assert slacks == {"since": 0, "opened": 2, "updated": 0}


def test_without_an_order_fhir_sorts_as_the_map_says() -> None:
    newest = replace(WARDS, entity=replace(WARDS.entity, newest_by="since"))
    parsed = condition("status eq 1")
    for options, sort in [("", "-since"), ("$orderby=since", "since"), ("$orderby=name", None)]:
        asked = replace(query.parse(options, Collection(WARDS.type)), filter=parsed)
        assert plan_query(asked, split_filter(parsed), newest, TARGETS).sort == sort
    assert plan(parsed).sort is None


# --- the tables that are shipped ------------------------------------------------------------------

# By resource type: what a sub-grid, a view and a flow ask, and the search that it becomes.
SHIPPED = {
    "AllergyIntolerance": (f"_msemr_patient_value eq {ANNA}", "patient=Patient/p"),
    "Condition": (f"_msemr_subjecttypepatient_value eq {ANNA}", "patient=Patient/p"),
    "Encounter": ("msemr_encounterstatus eq 935000002", "status=triaged"),
    "Immunization": (f"_msemr_patient_value eq {ANNA}", "patient=Patient/p"),
    "Location": ("contains(msemr_name,'ward')", "name:contains=ward"),
    "Observation": (
        f"{PATIENT} eq {ANNA} and msemr_codecode eq '8867-4'",
        "patient=Patient/p&code=8867-4",
    ),
    "Procedure": (
        "contains(msemr_patientfullname,'James') and startswith(msemr_codedisplay,'Appen')",
        "patient:Patient.name:contains=James&code:text=Appen",
    ),
    "Coverage": ("contains(msemr_patientfullname,'J')", "beneficiary:Patient.name:contains=J"),
}


@pytest.mark.parametrize("type_", SHIPPED)
def test_what_a_form_asks_of_a_shipped_table_is_one_search(type_: str) -> None:
    of, (text, search) = SHAPES[type_], SHIPPED[type_]
    parsed = condition(text, of)
    targets: Mapping[tuple[str, UUID], str] = {pair: "p" for pair in list_keys(parsed)}
    assert describe(plan(parsed, of, targets))[0] == search


def by_patient(of: MappedEntityType) -> dict[str, str]:
    """How each lookup to a contact is searched."""
    names = [
        name for name, entry in of.attributes.items() if entry.virtual_column.target == "Patient"
    ]
    asked = {name: condition(f"{name} eq {ANNA}", of) for name in names}
    return {
        name: describe(plan(parsed, of, {(name, ANNA): "p"}))[1] for name, parsed in asked.items()
    }


def test_every_table_of_a_patient_has_a_search_by_patient() -> None:
    """The related lists of a patient's form."""
    searches = {type_: set(by_patient(of).values()) for type_, of in SHAPES.items()}
    assert {type_ for type_, found in searches.items() if not found} == {"Location"}
    # Other participants of an appointment than the first may be patients.
    assert {type_ for type_, found in searches.items() if found - {EXACT}} == {"Appointment"}
    assert searches["Appointment"] == {NARROWED}
