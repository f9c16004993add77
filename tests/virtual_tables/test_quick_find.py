"""What is typed into the search box of a list: names of codes, by their beginning."""

from __future__ import annotations

import pytest

from integration.core.errors import Rejected
from tests.virtual_tables.conftest import Feed, Json

SET = "msemr_conditions"
PATIENT = {"reference": "Patient/00000000-0000-4000-8000-000000000001"}


def condition(id_: str, code: Json) -> Json:
    return {"resourceType": "Condition", "id": id_, "subject": PATIENT, "code": code}


def quick_find(text: str) -> str:
    columns = ("msemr_conditioncodedisplay", "msemr_conditioncodetext")
    return " or ".join(f"startswith({column},'{text}')" for column in columns)


async def find(feed: Feed, condition_: str) -> list[str]:
    rows = await feed.every(SET, f"$select=msemr_azurefhirid&$filter={condition_}")
    return sorted(row["msemr_azurefhirid"] for row in rows)


async def test_a_quick_find_among_more_than_may_be_looked_at_is_one_search(feed: Feed) -> None:
    await feed.put(
        *(condition(f"c-{number}", {"text": f"Common cold {number}"}) for number in range(2100)),
        condition("text", {"text": "Fracture of arm", "coding": [{"display": "Broken arm"}]}),
        condition("display", {"coding": [{"code": "1", "display": "fracture of leg"}]}),
    )
    feed.asked.clear()
    assert await find(feed, quick_find("Frac")) == ["display", "text"]
    (request,) = feed.asked
    assert request.url.params["code:text"] == "Frac"
    with pytest.raises(Rejected, match="msemr_conditioncodetext"):
        await feed.get(SET, "$filter=contains(msemr_conditioncodetext,'ract')&$count=true")
    counted = await feed.get(SET, f"$filter={quick_find('Frac')}&$count=true")
    assert counted["@odata.count"] == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("fra", ["comma", "plain", "second"]),  # whatever the case
        ("Broken", []),  # the display of a code with a text is not its name
        ("Fracture, left", ["comma"]),
        ("arm", []),  # nor a word within
        ("A", []),  # nor a letter with an accent
        ("1", []),  # nor the code
    ],
)
async def test_a_quick_find_shows_the_rows_whose_name_begins_so(
    feed: Feed, text: str, found: list[str]
) -> None:
    await feed.put(
        condition("plain", {"text": "Fra arm", "coding": [{"code": "1", "display": "Broken"}]}),
        condition("second", {"coding": [{"code": "1"}, {"code": "2", "display": "fra leg"}]}),
        condition("comma", {"text": "Fracture, left"}),
        condition("accent", {"text": "Ángina", "coding": [{"code": "1", "display": "A"}]}),
        condition("code", {"coding": [{"code": "1"}]}),
    )
    assert await find(feed, quick_find(text)) == found


async def test_a_name_is_shown_with_the_blanks_that_it_begins_with_since_fhir_compares_them(
    feed: Feed,
) -> None:
    await feed.put(
        condition("blank", {"text": "  Fracture  "}), condition("plain", {"text": "Fracture"})
    )
    rows = await feed.every(SET, "$filter=contains(msemr_conditioncodetext,'Fracture')")
    assert {row["msemr_azurefhirid"]: row["msemr_conditioncodetext"] for row in rows} == {
        "blank": "  Fracture",
        "plain": "Fracture",
    }
    assert await find(feed, "startswith(msemr_conditioncodetext,'Fracture')") == ["plain"]
    assert await find(feed, "startswith(msemr_conditioncodetext,'  Fra')") == ["blank"]
