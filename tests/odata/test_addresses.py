"""What stands at which address below the feed's root."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.odata.addresses import (
    Collection,
    Count,
    Entity,
    Metadata,
    ServiceDocument,
    parse,
)
from tests.odata.sets import KEY, OBSERVATIONS, OTHER, refusal

SETS = {OBSERVATIONS.set: OBSERVATIONS}


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("", ServiceDocument()),
        ("/", ServiceDocument()),
        ("$metadata", Metadata()),
        ("msemr_observations", Collection(OBSERVATIONS)),
        ("/msemr_observations/", Collection(OBSERVATIONS)),
        ("msemr_observations/$count", Count(OBSERVATIONS)),
        (f"msemr_observations({KEY})", Entity(OBSERVATIONS, KEY)),
        (f"msemr_observations({str(OTHER).upper()})", Entity(OBSERVATIONS, OTHER)),
        (f"msemr_observations(msemr_observationid={KEY})", Entity(OBSERVATIONS, KEY)),
    ],
)
def test_an_address_stands_for_one_thing(path: str, address: Any) -> None:
    assert parse(path, SETS) == address


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("msemr_encounters", 404),
        (f"msemr_encounters({KEY})", 404),
        ("MSEMR_observations", 404),
        ("$metadata/x", 404),
        ("msemr_observations/nothing", 404),
        (f"msemr_observations({KEY}", 404),
        ("../msemr_observations", 404),
        ("msemr_observations//$count", 404),
        ("msemr_observations\n", 404),
        ("msemr_observations()", 400),
        ("msemr_observations(1)", 400),
        (f"msemr_observations('{KEY}')", 400),
        (f"msemr_observations(code={KEY})", 400),
        (f"msemr_observations({KEY},{KEY})", 400),
        ("$batch", 501),
        ("$entity", 501),
        ("$all", 501),
        ("$crossjoin(msemr_observations)", 501),
        (f"msemr_observations({KEY})/code", 501),
        (f"msemr_observations({KEY})/code/$value", 501),
        (f"msemr_observations({KEY})/$ref", 501),
        (f"msemr_observations({KEY})/$count", 501),
        ("msemr_observations/$query", 501),
    ],
)
def test_everything_else_is_refused(path: str, status: int) -> None:
    assert refusal(lambda: parse(path, SETS)).status == status


def test_what_the_address_said_is_not_repeated() -> None:
    for path in ("Zaphkiel", "msemr_observations(Zaphkiel)", "msemr_observations/Zaphkiel"):
        refusal(lambda path=path: parse(path, SETS))


def outcome(path: str) -> int:
    try:
        return 200 if parse(path, SETS) else 0
    except Rejected as rejected:
        return rejected.status


@given(st.text(max_size=40) | st.text(max_size=20).map(lambda text: f"msemr_observations({text})"))
def test_any_path_is_understood_or_refused(path: str) -> None:
    assert outcome(path) in (200, 400, 404, 501)
