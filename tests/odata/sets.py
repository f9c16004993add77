"""An entity set with a property of every type, rows of it, and filters with what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.odata.model import EntityType, Property, Type

KEY = UUID("11111111-2222-3333-4444-555555555555")
OTHER = UUID("abcdef01-2222-3333-4444-555555555555")
ROOT = "https://relay.example/api/odata/"

# Stands for everything a patient could be known by.
MARKER = "Zaphkiel"

OBSERVATIONS = EntityType(
    name="msemr_observation",
    set="msemr_observations",
    key="msemr_observationid",
    properties=(
        Property("msemr_observationid", Type.GUID, nullable=False),
        Property("description", max_length=20, writable=True),
        Property("code", case_sensitive=True, writable=True),
        Property("status", Type.INT32, nullable=False, writable=True),
        Property("big", Type.INT64, writable=True),
        Property("value", Type.DECIMAL, precision=10, scale=3, writable=True),
        Property("ratio", Type.DECIMAL, writable=True),
        Property("final", Type.BOOLEAN, writable=True),
        Property("issued", Type.DATE_TIME_OFFSET, writable=True),
        Property("_patient_value", Type.GUID, writable=True),
        Property("allergy"),
    ),
)

ROW: dict[str, Any] = {
    "msemr_observationid": KEY,
    "description": "Body Weight",
    "code": "kg",
    "status": 935000001,
    "big": 9_007_199_254_740_993,
    "value": Decimal("81.10"),
    "ratio": None,
    "final": True,
    "issued": datetime.fromisoformat("2024-02-29T23:59:59.120000+00:00"),
    "_patient_value": OTHER,
    "allergy": None,
}


def refusal(action: Callable[[], Any]) -> Rejected:
    """What was refused, with nothing of anybody's in it, nor in what it came from."""
    with pytest.raises(Rejected) as caught:
        action()
    refused = caught.value
    assert refused.__cause__ is None
    assert refused.__suppress_context__ or refused.__context__ is None
    assert all(MARKER not in str(issue) for issue in refused.issues)
    return refused


# -- values --------------------------------------------------------------------------------------

_texts = st.text(st.sampled_from("aAbBsSßé' %_/(),🎈"), max_size=4)
_numbers = st.integers(-3, 3)
_decimals = st.decimals(-2, 2, places=1)
_moments = st.integers(0, 5).map(lambda hours: datetime(2024, 1, 1, tzinfo=UTC) + hours * HOUR)
_guids = st.sampled_from([KEY, OTHER])

HOUR = timedelta(hours=1)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "msemr_observationid": _guids,
    "description": _texts,
    "code": _texts,
    "status": _numbers,
    "big": _numbers,
    "value": _decimals,
    "ratio": _decimals,
    "final": st.booleans(),
    "issued": _moments,
    "_patient_value": _guids,
    "allergy": _texts,
}
REQUIRED = ("msemr_observationid", "status")
ROWS = st.fixed_dictionaries(
    {name: values if name in REQUIRED else st.none() | values for name, values in VALUES.items()}
)


def literal(value: Any, offset: int = 0) -> str:
    """A value as a client writes it; a moment in a time zone of its choice."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime):
        local = value.astimezone(timezone(offset * HOUR)).isoformat()
        return local if offset else local.replace("+00:00", "Z")
    return str(value)


# -- filters and what they mean ------------------------------------------------------------------

Meaning = Callable[[dict[str, Any]], bool | None]
Case = tuple[str, Meaning]

NUMBERS = ("status", "big", "value", "ratio")
TEXTS = ("description", "code", "allergy")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a is not None and b is not None and a < b,
    "le": lambda a, b: a is not None and b is not None and a <= b,
    "gt": lambda a, b: a is not None and b is not None and a > b,
    "ge": lambda a, b: a is not None and b is not None and a >= b,
}
PARTS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda whole, part: part in whole,
    "startswith": lambda whole, part: whole[: len(part)] == part,
    "endswith": lambda whole, part: whole[len(whole) - len(part) :] == part,
}
TURNED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


def plain(name: str, value: Any) -> Any:
    """What a value is compared by: text without case, but for codes."""
    return value.lower() if isinstance(value, str) and name != "code" else value


@st.composite
def comparisons(draw: st.DrawFn, names: Sequence[str]) -> Case:
    name = draw(st.sampled_from(names))
    other = draw(st.sampled_from([None, *NUMBERS])) if name in NUMBERS else None
    value = draw(st.none() | VALUES[name])
    operator = draw(st.sampled_from(list(COMPARISONS)))
    right = other or literal(value, draw(st.integers(-2, 2)))
    space = draw(st.sampled_from([" ", "  ", "\t"]))
    turned = draw(st.booleans()) and not other
    text = space.join([right, TURNED[operator], name] if turned else [name, operator, right])
    holds = COMPARISONS[operator]

    def meaning(row: dict[str, Any]) -> bool:
        return holds(plain(name, row[name]), row[other] if other else plain(name, value))

    return text, meaning


@st.composite
def memberships(draw: st.DrawFn, names: Sequence[str], fewest: int) -> Case:
    name = draw(st.sampled_from(names))
    values = draw(st.lists(st.none() | VALUES[name], min_size=fewest, max_size=3))
    text = f"{name} in ({', '.join(literal(value) for value in values)})"
    return text, lambda row: plain(name, row[name]) in [plain(name, item) for item in values]


@st.composite
def parts(draw: st.DrawFn, names: Sequence[str]) -> Case:
    name = draw(st.sampled_from([name for name in TEXTS if name in names]))
    function = draw(st.sampled_from(list(PARTS)))
    part = draw(_texts)
    lowered = draw(st.booleans())
    whole = f"tolower({name})" if lowered else name

    def meaning(row: dict[str, Any]) -> bool | None:
        if row[name] is None:
            return None
        value = row[name].lower() if lowered else row[name]
        return PARTS[function](plain(name, value), plain(name, part))

    return f"{function}({whole},{literal(part)})", meaning


def _not(case: Case) -> Case:
    text, meaning = case

    def negated(row: dict[str, Any]) -> bool | None:
        value = meaning(row)
        return None if value is None else not value

    return f"not ({text})", negated


def _is(case: Case, value: bool) -> Case:
    text, meaning = case
    return f"({text}) eq {literal(value)}", lambda row: meaning(row) is value


def _and(cases: list[Case]) -> Case:
    def both(row: dict[str, Any]) -> bool | None:
        values = [meaning(row) for _, meaning in cases]
        return False if False in values else None if None in values else True

    return " and ".join(f"({text})" for text, _ in cases), both


def _or(cases: list[Case]) -> Case:
    def either(row: dict[str, Any]) -> bool | None:
        values = [meaning(row) for _, meaning in cases]
        return True if True in values else None if None in values else False

    return " or ".join(f"({text})" for text, _ in cases), either


def filters(names: Sequence[str] = tuple(VALUES), fewest: int = 0) -> st.SearchStrategy[Case]:
    """Filters of these properties, whose lists have at least so many members."""
    leaves = st.one_of(
        comparisons(names),
        memberships(names, fewest),
        parts(names),
        st.just(("final", lambda row: row["final"])),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(_not),
            st.tuples(inner, st.booleans()).map(lambda pair: _is(*pair)),
            st.lists(inner, min_size=2, max_size=3).map(_and),
            st.lists(inner, min_size=2, max_size=3).map(_or),
        ),
        max_leaves=6,
    )
