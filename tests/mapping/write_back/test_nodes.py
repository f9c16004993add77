"""What somebody types into a contact is written where the contact shows it, in whatever patient, and
nothing else of the patient changes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.core.model import Column
from integration.mapping import engine
from integration.mapping.explain import assume_columns
from integration.mapping.fhirpath.periods import is_in_use
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import EntityMap, Kind
from integration.mapping.write_back.apply import explain_unwritable, write_columns
from integration.mapping.write_back.nodes import split_path
from tests.builders import TODAY

HEALTHCARE = load_shipped_maps("healthcare")["Patient"]
PLAIN = load_shipped_maps("plain", "new")["Patient"]
MARITAL_STATUS = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"

OLD_HOME = {
    "use": "home",
    "city": "Oldtown",
    "period": {"end": "2020-01-01"},
}
OLD_MOBILE = {
    "system": "phone",
    "use": "mobile",
    "value": "555-0000",
    "period": {"end": "2020-01-01"},
}


def read(entity: EntityMap, resource: Mapping[str, Any]) -> dict[str, Any]:
    tables = assume_columns(entity)
    return dict(engine.map_resource(entity, resource, tables, today=TODAY).values)


def write(resource: dict[str, Any], entity: EntityMap = HEALTHCARE, **changes: Any) -> Any:
    columns = {
        name: Column(name, "Picklist" if isinstance(value, int) else "String", max_length=200)
        for name, value in changes.items()
    }
    given = {"resourceType": "Patient", "id": "p1", **resource}
    written = write_columns(entity, given, changes, columns, today=TODAY)
    assert given == {"resourceType": "Patient", "id": "p1", **resource}, "it is a copy"
    return {name: value for name, value in written.items() if name not in ("resourceType", "id")}


# -- where it is written --------------------------------------------------------------------------


def test_the_number_that_is_in_use_is_written_and_no_other() -> None:
    new = {"system": "phone", "use": "mobile", "value": "555-0001"}
    assert write({"telecom": [OLD_MOBILE, new]}, mobilephone="555-0002") == {
        "telecom": [OLD_MOBILE, {**new, "value": "555-0002"}]
    }


def test_an_item_that_is_not_there_is_made_as_the_map_says() -> None:
    assert write({"telecom": [OLD_MOBILE]}, mobilephone="555-0002") == {
        "telecom": [OLD_MOBILE, {"system": "phone", "use": "mobile", "value": "555-0002"}]
    }
    work = {"use": "billing", "city": "Elsewhere"}
    assert write({"address": [work]}, address1_city="Newtown") == {
        "address": [work, {"use": "home", "city": "Newtown"}]
    }


def test_an_address_that_has_ended_is_not_moved() -> None:
    """It is shown, since FHIR has no other one. What somebody types is another address: all of it
    has to be typed, or it would be half an address."""
    with pytest.raises(Rejected, match="write that as well"):
        write({"address": [OLD_HOME]}, address1_city="Newtown")
    written = write(
        {"address": [OLD_HOME]}, address1_city="Newtown", msemr_address1periodenddate=None
    )
    assert written == {"address": [OLD_HOME, {"use": "home", "city": "Newtown"}]}


def test_columns_of_one_item_that_is_made_go_into_one_item() -> None:
    assert write({}, address1_city="Town", address1_line1="1 Street", address1_postalcode="1") == {
        "address": [{"use": "home", "line": ["1 Street"], "city": "Town", "postalCode": "1"}]
    }


def test_a_name_in_parts_loses_the_text_that_contradicts_them() -> None:
    name = {"use": "official", "text": "Ann Other", "family": "Other", "given": ["Ann", "B"]}
    assert write({"name": [name]}, lastname="Another") == {
        "name": [{"use": "official", "family": "Another", "given": ["Ann", "B"]}]
    }


def test_a_name_that_is_text_alone_gets_the_part_that_was_typed() -> None:
    written = write({"name": [{"text": "Ann Other"}]}, lastname="Other", firstname="Ann")
    assert written == {"name": [{"given": ["Ann"], "family": "Other"}]}


def test_items_that_a_column_shows_together_become_the_one_that_was_typed() -> None:
    name = {"family": "Other", "given": ["Ann", "B.", "C."], "prefix": ["Prof.", "Dr."]}
    assert write({"name": [name]}, middlename="Beth", salutation="Dr.") == {
        "name": [{"family": "Other", "given": ["Ann", "Beth"], "prefix": ["Dr."]}]
    }
    assert write({"name": [name]}, middlename=None) == {"name": [{**name, "given": ["Ann"]}]}


def test_a_number_that_is_cleared_goes_with_its_item() -> None:
    new = {"system": "phone", "use": "mobile", "value": "555-0001"}
    assert write({"telecom": [OLD_MOBILE, new]}, mobilephone=None) == {"telecom": [OLD_MOBILE]}


def test_a_code_is_written_with_its_system() -> None:
    system = MARITAL_STATUS
    assert write({}, familystatuscode=2) == {
        "maritalStatus": {"coding": [{"system": system, "code": "M"}]}
    }
    other = {"coding": [{"system": system, "code": "S", "display": "Never married"}]}
    assert write({"maritalStatus": other}, familystatuscode=2) == {
        "maritalStatus": {"coding": [{"system": system, "code": "M"}]}
    }


def test_what_stands_there_already_is_not_written() -> None:
    given = {"resourceType": "Patient", "id": "p1", "name": [{"family": "Other"}]}
    columns = {"lastname": Column("lastname", "String", max_length=50)}
    assert write_columns(HEALTHCARE, given, {"lastname": "Other"}, columns, today=TODAY) is given


# -- what cannot be written -----------------------------------------------------------------------


def test_a_third_line_without_a_second_one_is_refused() -> None:
    """The column would show it as another line."""
    with pytest.raises(Rejected):
        write({"address": [{"use": "home", "line": ["1 Street"]}]}, address1_line3="c/o")


def test_what_another_column_would_lose_is_refused_unless_it_is_written_as_well() -> None:
    """The last name of a name that is text alone."""
    with pytest.raises(Rejected, match="from the column lastname: write that as well"):
        write({"name": [{"text": "Ann Other"}]}, firstname="Ann")


def test_a_second_mail_without_a_first_one_is_refused() -> None:
    with pytest.raises(Rejected):
        write({}, emailaddress2="b@example.org")


@pytest.mark.parametrize(("entity", "number"), [(HEALTHCARE, 88), (PLAIN, 44)])
def test_so_many_columns_of_a_patient_can_be_written(entity: EntityMap, number: int) -> None:
    writable = [item for item in entity.attributes if item.writeback]
    assert len(writable) == number
    assert all(explain_unwritable(entity, item) is None for item in writable)


@pytest.mark.parametrize(
    "path",
    [
        "name",
        "name.family | name.text",
        "iif(name.exists(), 'yes', 'no')",
        "iif(active, name.family, name.text)",
        "%home.text",
        "%name.select(family & given)",
        "name.given.join",
        "name.where(use = '.').first()",
    ],
)
def test_a_path_that_leads_to_nothing_that_can_be_written_is_told(path: str) -> None:
    assert split_path(path, "Patient", HEALTHCARE.variables) is None


# -- any patient, any column ----------------------------------------------------------------------

_TEXT = st.sampled_from(["A", "B b", "C.", "555-01"])
_PERIOD = st.sampled_from([None, {"end": "2020-01-01"}, {"start": "2020-01-01"}])


def _with_period(items: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda item, period: {**item, **({"period": period} if period else {})},
                     items, _PERIOD)  # fmt: skip


_NAMES = _with_period(
    st.fixed_dictionaries(
        {},
        optional={
            "use": st.sampled_from(["official", "usual", "nickname", "maiden", "temp", "old"]),
            "family": _TEXT,
            "given": st.lists(_TEXT, min_size=1, max_size=3),
            "prefix": st.lists(_TEXT, min_size=1, max_size=2),
            "text": _TEXT,
        },
    )
)
_TELECOM = _with_period(
    st.fixed_dictionaries(
        {"system": st.sampled_from(["phone", "email", "fax", "sms"]), "value": _TEXT},
        optional={"use": st.sampled_from(["home", "work", "mobile", "old"]), "rank": st.just(1)},
    )
)
_ADDRESSES = _with_period(
    st.fixed_dictionaries(
        {},
        optional={
            "use": st.sampled_from(["home", "work", "temp", "billing", "old"]),
            "line": st.lists(_TEXT, min_size=1, max_size=4),
            "city": _TEXT,
            "postalCode": _TEXT,
            "text": _TEXT,
        },
    )
)
_PATIENTS = st.builds(
    lambda names, telecom, addresses: {
        name: items
        for name, items in (("name", names), ("telecom", telecom), ("address", addresses))
        if items
    },
    st.lists(_NAMES.filter(lambda item: item.keys() - {"use", "period"}), max_size=3),
    st.lists(_TELECOM, max_size=4),
    st.lists(_ADDRESSES.filter(lambda item: item.keys() - {"use", "period"}), max_size=3),
)

_COLUMNS = [
    item.column
    for item in PLAIN.attributes
    if item.writeback and item.kind is Kind.COPY and "emergency" not in item.column
]


@given(resource=_PATIENTS, column=st.sampled_from(_COLUMNS), value=st.sampled_from(["New", None]))
def test_a_column_shows_what_was_typed_or_it_is_refused(
    resource: dict[str, Any], column: str, value: str | None
) -> None:
    before = read(PLAIN, {"resourceType": "Patient", "id": "p1", **resource})
    with suppress(Rejected):  # it names the column: see test_apply
        written = write(resource, PLAIN, **{column: value})
        after = read(PLAIN, {"resourceType": "Patient", "id": "p1", **written})
        assert after[column] == value
        for name in ("name", "telecom", "address"):
            ended = [item for item in resource.get(name, []) if not is_in_use(item, TODAY)]
            assert all(item in written.get(name, []) for item in ended), "what has ended stays"
        lost = {n for n in before if before[n] is not None and after[n] is None} - {column}
        assert not lost or value is None, "no other column loses what it showed"
