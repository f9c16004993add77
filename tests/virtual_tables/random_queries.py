"""Random resources, and random queries of the feed with what each of them means."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from integration.odata.model import EntityType, Property, Type
from integration.virtual_tables.page_starts import PageStarts
from tests.virtual_tables.conftest import Feed, Json

Row = dict[str, Any]
Holds = Callable[[Row], bool | None]


class Query(NamedTuple):
    text: str
    holds: Holds


# -- what the server holds ------------------------------------------------------------------------

WORDS = [
    "Weight",
    "weight loss",
    "Blut\u00fcberdruck",
    "O'Hara",
    "100%",
    "a,b",
    "c$d|e\\f",
    "x y",
    "W",
    " Weight",
]
CODES = ["8867-4", "29463-7", "abc", "ABC", "a b"]
DAYS = ["2023", "2023-12", "2023-12-31", "2024-01-01T00:30:00+02:00", "2024-01-01T00:30:00Z"]
DAYS += ["2024-02-29T23:59:59.999-11:00", "2024-03-01", "2024-03-01T12:00:00Z"]


def _some(r: random.Random, values: Sequence[Any]) -> Any:
    return r.choice([None, *values, *values])


def _concept(r: random.Random) -> Json | None:
    code, text = _some(r, CODES), _some(r, WORDS)
    named = {"display": r.choice(WORDS)} if r.random() < 0.3 else {}
    coding = [{"system": "http://loinc.org", "code": code, **named}] if code else []
    more = (
        [{"system": "http://snomed.info/sct", "code": r.choice(CODES)}] if r.random() < 0.2 else []
    )
    made = {"coding": coding + more, "text": text}
    return {name: value for name, value in made.items() if value} or None


def make_resources(r: random.Random) -> Iterator[Json]:
    patients = [str(UUID(int=n)) for n in range(1, 4)] + ["p-4", "p-5"]
    for id_ in patients:
        name = {"family": r.choice(WORDS), "given": r.sample(WORDS, 2)}
        born = _some(r, ["1980", "1980-02", "1980-02-03", "1980-02-04"])
        yield _kept({"resourceType": "Patient", "id": id_, "name": [name], "birthDate": born})
    for n in range(120):
        made = _observation(r, patients) if n % 2 else _condition(r, patients)
        id_ = str(UUID(int=10_000 + n)) if r.random() < 0.5 else f"r-{n}"
        yield _kept({**made, "id": id_})
    for n in range(40):
        yield _kept({**_encounter(r, patients), "id": f"e-{n}"})
        yield _kept({**_place(r), "id": f"l-{n}"})
        yield _kept({**_immunization(r, patients), "id": f"i-{n}"})
        yield _kept({**_task(r, patients), "id": f"t-{n}"})


def _subject(r: random.Random, patients: Sequence[str]) -> Json:
    return {"reference": f"Patient/{r.choice(patients)}"}


def _observation(r: random.Random, patients: Sequence[str]) -> Json:
    made: Json = {
        "resourceType": "Observation",
        "status": r.choice(["final", "preliminary", "amended", "unknown"]),
        "code": _concept(r) or {"text": "none"},
        "subject": _subject(r, patients),
        "effectiveDateTime": _some(r, DAYS),
        "issued": _some(r, [day for day in DAYS if "T" in day]),
        "encounter": {"reference": f"Encounter/e-{r.randrange(40)}"} if r.random() < 0.3 else None,
        "category": [found] if (found := _concept(r)) else None,
    }
    match r.randrange(4):
        case 0:
            value = Decimal(r.randrange(-50, 500)) / 4
            made["valueQuantity"] = {"value": value, "unit": r.choice(["kg", "KG", "mmHg"])}
        case 1:
            made["valueString"] = r.choice(WORDS)
        case 2:
            made["valueBoolean"] = r.random() < 0.5
    return made


def _condition(r: random.Random, patients: Sequence[str]) -> Json:
    system = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    status = _some(r, ["active", "resolved", "remission"])
    return {
        "resourceType": "Condition",
        "clinicalStatus": {"coding": [{"system": system, "code": status}]} if status else None,
        "code": _concept(r),
        "subject": _subject(r, patients),
        "onsetDateTime": _some(r, DAYS),
        "recordedDate": _some(r, DAYS),
        "note": [{"text": r.choice(WORDS)}] if r.random() < 0.4 else None,
    }


def _encounter(r: random.Random, patients: Sequence[str]) -> Json:
    start, end = sorted(r.sample(DAYS, 2))
    return {
        "resourceType": "Encounter",
        "status": r.choice(["planned", "in-progress", "finished", "cancelled"]),
        "class": {"code": r.choice(["AMB", "IMP", "EMER"])},
        "subject": _subject(r, patients) if r.random() < 0.8 else None,
        "period": {"start": start, "end": end} if r.random() < 0.7 else None,
    }


def _place(r: random.Random) -> Json:
    city = _some(r, WORDS)
    return {
        "resourceType": "Location",
        "name": _some(r, WORDS),
        "status": _some(r, ["active", "suspended", "inactive"]),
        "address": {"city": city, "country": "US"} if city else None,
    }


def _immunization(r: random.Random, patients: Sequence[str]) -> Json:
    return {
        "resourceType": "Immunization",
        "status": r.choice(["completed", "not-done"]),
        "vaccineCode": _concept(r) or {"text": "none"},
        "patient": _subject(r, patients),
        "occurrenceDateTime": r.choice(DAYS),
        "primarySource": r.choice([True, False, None]),
    }


def _task(r: random.Random, patients: Sequence[str]) -> Json:
    return {
        "resourceType": "Task",
        "status": r.choice(["draft", "requested", "completed"]),
        "intent": r.choice(["order", "plan"]),
        "priority": _some(r, ["routine", "urgent", "stat"]),
        "for": _subject(r, patients) if r.random() < 0.7 else None,
        "authoredOn": _some(r, DAYS),
        "description": _some(r, WORDS),
    }


def _kept(resource: Json) -> Json:
    return {name: value for name, value in resource.items() if value is not None}


# -- random queries, each with what it means -------------------------------------------------------


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def _fold(known: Property, value: Any) -> Any:
    return value.lower() if isinstance(value, str) and not known.case_sensitive else value


def _value(r: random.Random, known: Property, rows: Sequence[Row]) -> Any:
    """Mostly one that is there, or close to it."""
    place = [row[known.name] for row in rows if row[known.name] is not None]
    if r.random() < 0.1 or not place:
        return None
    value = r.choice(place)
    match known.type:
        case Type.STRING if r.random() < 0.3:
            return value.swapcase()
        case Type.DATE_TIME_OFFSET if r.random() < 0.5:
            return value + timedelta(seconds=r.choice([-1, 0, 1, 3600, -86400]))
        case Type.INT32 | Type.DECIMAL if r.random() < 0.2:
            return value + 1
        case Type.GUID if r.random() < 0.1:
            return UUID(int=999)
    return value


def _comparison(r: random.Random, type_: EntityType, rows: Sequence[Row]) -> Query:
    known = r.choice(type_.properties)
    kind = r.randrange(10)
    if known.type is Type.STRING and kind < 4:
        return _match(r, known, rows)
    if kind == 9:
        values = [_value(r, known, rows) for _ in range(r.randrange(1, 4))]
        folded = [_fold(known, value) for value in values]
        text = f"{known.name} in ({','.join(map(_literal, values))})"
        return Query(text, lambda row: _fold(known, row[known.name]) in folded)
    value = _value(r, known, rows)
    ordered = known.type not in (Type.BOOLEAN, Type.GUID)
    operator = r.choice(
        ["eq", "eq", "ne", "lt", "le", "gt", "ge"] if ordered else ["eq", "eq", "ne"]
    )
    return Query(
        f"{known.name} {operator} {_literal(value)}",
        lambda row: _compared(operator, _fold(known, row[known.name]), _fold(known, value)),
    )


def _compared(operator: str, entry: Any, other: Any) -> bool:
    if operator in ("eq", "ne"):
        return (entry == other) is (operator == "eq")
    if entry is None or other is None:
        return False
    return {"lt": entry < other, "le": entry <= other, "gt": entry > other, "ge": entry >= other}[
        operator
    ]


def _match(r: random.Random, known: Property, rows: Sequence[Row]) -> Query:
    text = _value(r, known, rows) or "W"
    first = r.randrange(len(text))
    part = text[first : first + r.randrange(1, 5)]
    function = r.choice(["contains", "startswith", "endswith"])

    def holds(row: Row) -> bool | None:
        whole = _fold(known, row[known.name])
        if whole is None:
            return None
        piece = _fold(known, part)
        if function == "contains":
            return piece in whole
        return bool(whole.startswith(piece) if function == "startswith" else whole.endswith(piece))

    return Query(f"{function}({known.name},{_literal(part)})", holds)


def _condition_of(r: random.Random, type_: EntityType, rows: Sequence[Row], depth: int) -> Query:
    kind = r.randrange(8) if depth else 7
    if kind > 3:
        return _comparison(r, type_, rows)
    entry = _condition_of(r, type_, rows, depth - 1)
    if kind == 0:
        return Query(f"not ({entry.text})", lambda row: _not(entry.holds(row)))
    other = _condition_of(r, type_, rows, depth - 1)
    if kind == 1:
        either = f"({entry.text}) or ({other.text})"
        return Query(either, lambda row: _or(entry.holds(row), other.holds(row)))
    both = f"({entry.text}) and ({other.text})"
    return Query(both, lambda row: _not(_or(_not(entry.holds(row)), _not(other.holds(row)))))


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _or(entry: bool | None, other: bool | None) -> bool | None:
    if entry or other:
        return True
    return None if entry is None or other is None else False


# -- asking -----------------------------------------------------------------------------------------


def read_values(type_: EntityType, shown: Json) -> Row:
    """A row of the feed's JSON as Python's values."""
    return {known.name: _as(known, shown[known.name]) for known in type_.properties}


def _as(known: Property, value: Any) -> Any:
    if value is None:
        return None
    match known.type:
        case Type.GUID:
            return UUID(value)
        case Type.DATE_TIME_OFFSET:
            return datetime.fromisoformat(value).astimezone(UTC)
        case Type.DECIMAL:
            return Decimal(value)
    return value


def _rank(row: Row, order: Sequence[tuple[Property, bool]]) -> tuple[Any, ...]:
    """Comparable with others of the same order: what is greater comes later."""
    return tuple((row[known.name] is not None, _fold(known, row[known.name])) for known, _ in order)


def _sorted(rows: Sequence[Row], order: Sequence[tuple[Property, bool]]) -> list[Row]:
    rows = list(rows)
    for known, down in reversed(order):
        some = [(known, down)]
        rows.sort(key=lambda row, some=some: _comparable(_rank(row, some)), reverse=down)  # type: ignore[misc]
    return rows


def _comparable(rank: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((place, value if place else 0) for place, value in rank)


async def check_query(feed: Feed, r: random.Random, type_: EntityType, rows: Sequence[Row]) -> None:
    options, wanted = [], list(rows)
    if r.random() < 0.9:
        query = _condition_of(r, type_, rows, 3)
        options.append(f"$filter={query.text.replace('&', '%26')}")
        wanted = [row for row in rows if query.holds(row) is True]
    order: list[tuple[Property, bool]] = []
    if r.random() < 0.5:
        order = [
            (known, r.random() < 0.5) for known in r.sample(type_.properties, r.randrange(1, 3))
        ]
        said = (f"{known.name} {'desc' if down else 'asc'}" for known, down in order)
        options.append(f"$orderby={','.join(said)}")
    listed = _join(options)
    skip, top = 0, len(rows)
    if r.random() < 0.3:
        skip = r.randrange(0, 20)
        options.append(f"$skip={skip}")
    if r.random() < 0.4:
        top = r.randrange(0, 30)
        options.append(f"$top={top}")
    counted = r.random() < 0.2
    if counted:
        options.append("$count=true")
    text = _join(options)
    sized = {"prefer": f"odata.maxpagesize={r.randrange(1, 40)}"} if r.random() < 0.4 else {}
    if counted:
        first = await feed.get(type_.set, text, **sized)
        assert first["@odata.count"] == len(wanted), text
    shown = [read_values(type_, item) for item in await feed.every(type_.set, text, **sized)]
    by_key = {row[type_.key]: row for row in wanted}
    assert len({row[type_.key] for row in shown}) == len(shown), text
    assert all(by_key.get(row[type_.key]) == row for row in shown), text
    expected = _sorted(wanted, order)[skip : skip + top]
    assert len(shown) == len(expected), text
    assert [_rank(row, order) for row in shown] == [_rank(row, order) for row in expected], text
    if r.random() < 0.15:
        await _check_pages(feed, r, type_, listed, len(wanted))


def _join(options: Sequence[str]) -> str:
    return "&".join(options).replace("%", "%25").replace("%2526", "%26")


async def _check_pages(
    feed: Feed, r: random.Random, type_: EntityType, options: str, count: int
) -> None:
    """Read by $skip, and ask for other things with each page: each row comes once, in the order of
    the whole. Some pages are read by a worker that has not read the one before."""
    whole = [row[type_.key] for row in await feed.every(type_.set, options)]
    keys: list[str] = []
    while len(keys) < count:
        size = r.randrange(5, 40)
        more = [f"$skip={len(keys)}", r.choice([f"$top={size}", "$count=true", "$count=false"])]
        if r.random() < 0.3:
            more.append(f"$select={r.choice(type_.properties).name}")
        if r.random() < 0.3:
            reader = replace(feed.tables.reader, page_starts=PageStarts())
            feed.tables = replace(feed.tables, reader=reader)
        text = "&".join(filter(None, [options, *more]))
        page = await feed.get(type_.set, text, prefer=f"odata.maxpagesize={size}")
        assert page.get("@odata.count", count) == count, text
        assert page["value"], text
        keys += [row[type_.key] for row in page["value"]]
    assert keys == whole, options
