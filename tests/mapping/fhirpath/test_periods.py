"""What is not in use is the last choice, from the day on which it is not."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from integration.mapping.fhirpath.compile import compile_path
from integration.mapping.fhirpath.evaluate import Evaluation
from integration.mapping.fhirpath.periods import find_days

DAY = date(2026, 3, 2)
ENDED, LASTING = {"end": "2026-03-01"}, {"start": "2026-03-02", "end": "2026-03-02"}
COMING = {"start": "2026-03-03"}


def find(path: str, *names: dict[str, Any], today: date = DAY) -> list[Any]:
    patient = {"resourceType": "Patient", "id": "1", "name": list(names)}
    return Evaluation({}, patient, [], today=today).find_values(path)


def name(family: str, **elements: Any) -> dict[str, Any]:
    return {"family": family, **elements}


NAMES = (
    name("A", period=ENDED),
    name("B", use="old"),
    name("C", period=LASTING),
    name("D"),
    name("F", period=COMING),
    name("E", period={"start": "2020"}),
)


# The second of each pair is evaluated by fhirpathpy: the fast paths know no `&`.
@pytest.mark.parametrize("more", ["", ".select($this & '')"])
def test_what_is_not_in_use_comes_last_and_all_else_keeps_its_order(more: str) -> None:
    assert find(f"name.currentFirst().family{more}", *NAMES) == ["C", "D", "E", "A", "B", "F"]
    assert find(f"name.current().family{more}", *NAMES) == ["C", "D", "E"]
    assert find(f"name.exclude(name.current()).family{more}", *NAMES) == ["A", "B", "F"]


def test_what_is_not_in_use_is_found_where_there_is_nothing_else() -> None:
    assert find("name.currentFirst().first().family", *NAMES[:2]) == ["A"]
    assert find("name.currentFirst().first().family") == []
    assert compile_path("name.currentFirst()").needs == {"name"}


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("2026", "2026-12-31"),
        ("2028-02", "2028-02-29"),
        ("2026-03-01", "2026-03-01"),
        # A time counts in its own zone: whoever wrote it meant that day.
        ("2026-03-01T23:30:00-10:00", "2026-03-01"),
        ("2026-03-01T00:30:00+13:00", "2026-03-01"),
        ("9999-12-31", "9999-12-31"),
    ],
)
def test_a_period_lasts_until_the_end_of_what_is_stated(end: str, last: str) -> None:
    day = date.fromisoformat(last)
    assert find_days({"end": end}) == (None, day)
    assert find("name.current().family", name("A", period={"end": end}), today=day) == ["A"]
    if day < date.max:
        later = day + timedelta(days=1)
        assert find("name.current().family", name("A", period={"end": end}), today=later) == []


@pytest.mark.parametrize("end", [None, "", "soon", "2026-13", "2026-02-30", "0000", 2026, ["2026"]])
def test_an_end_that_cannot_be_read_is_none(end: Any) -> None:
    assert find_days({"start": end, "end": end}) == (None, None)
    assert find("name.current().family", name("A", period={"end": end})) == ["A"]


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("2026", "2026-01-01"),
        ("2026-03", "2026-03-01"),
        ("2026-03-02T23:00:00-10:00", "2026-03-02"),
    ],
)
def test_a_period_begins_with_the_first_day_of_what_is_stated(start: str, first: str) -> None:
    day = date.fromisoformat(first)
    coming = name("A", period={"start": start})
    assert find("name.current().family", coming, today=day) == ["A"]
    assert find("name.current().family", coming, today=day - timedelta(days=1)) == []


@pytest.mark.parametrize(
    ("ends", "changes_on"),
    [
        ([], None),
        (["2026-03-01"], None),
        (["2026-03-02"], "2026-03-03"),
        (["2027", "2026-04", "2026-01-01"], "2026-05-01"),
        (["9999-12-31"], None),
        (["2027", "from 2026-04-02", "from 2026-03-02"], "2026-04-02"),
    ],
)
def test_the_next_day_on_which_something_changes_is_known(
    ends: list[str], changes_on: str | None
) -> None:
    names = [
        name("A", period={"start" if end.startswith("from ") else "end": end.removeprefix("from ")})
        for end in ends
    ]
    patient = {"resourceType": "Patient", "id": "1", "contact": [{"name": each} for each in names]}
    found = Evaluation({}, patient, [], today=DAY).changes_on
    assert (None if found is None else found.isoformat()) == changes_on


def test_a_map_can_name_the_day_of_the_mapping() -> None:
    patient = {"resourceType": "Patient", "id": "1", "birthDate": "2026-03-01"}
    found = Evaluation({}, patient, [], today=DAY)
    assert found.find_values("birthDate < %today") == [True]
    assert found.find_values("%today.toString()") == ["2026-03-02"]
