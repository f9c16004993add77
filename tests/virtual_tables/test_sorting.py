"""Lists that FHIR sorts: by a date of the table, and newest first where nobody asks for an order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from integration.core import decimal_json
from integration.core.errors import Misconfigured
from integration.mapping.model import PartialDate
from integration.virtual_tables.skip_token import parse_token
from tests.randomness import make_random
from tests.virtual_tables.conftest import SHAPES, TOKEN_KEY, Feed, Json
from tests.virtual_tables.scripted import FHIR, scripted

PATIENT = {"reference": "Patient/00000000-0000-4000-8000-000000000001"}
TEXT = {"text": "some"}

# Days, moments in time zones that are as far apart as they are anywhere, and parts of dates.
DATES = ["2023", "2023-12", "2023-12-31", "2024-01-01", "2024-01-02", "2024"]
DATES += ["2024-01-01T00:30:00+14:00", "2023-12-31T23:30:00-12:00", "2024-01-01T12:00:00Z"]
DATES += ["2024-01-01T12:00:00.250Z", "2024-01-02T13:59:59+14:00", "2024-01-01T12:00:00+00:00"]
MOMENTS = [text for text in DATES if "T" in text]


def of_element(name: str, values: list[str] = DATES) -> list[Json]:
    return [{name: value} for value in values] + [{}]


def of_periods(name: str) -> list[Json]:
    open_ended = [{name: {"start": value}} for value in DATES]
    return [*open_ended, {name: {"end": "2024-01-01"}}, {}]


def of_choice(name: str) -> list[Json]:
    return [*of_element(f"{name}DateTime"), *of_periods(f"{name}Period")]


def in_context(periods: list[Json]) -> list[Json]:
    return [{"context": item} if item else {} for item in periods]


CLAIM: Json = {
    "status": "draft",
    "use": "claim",
    "type": TEXT,
    "patient": PATIENT,
    "provider": {"display": "some"},
    "priority": TEXT,
    "insurance": [{"sequence": 1, "focal": True, "coverage": {"display": "some"}}],
}
ALLERGY: Json = {
    "patient": PATIENT,
    "verificationStatus": {
        "coding": [
            {
                "system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification",
                "code": "entered-in-error",
            }
        ]
    },
}
ORDER: Json = {"status": "draft", "intent": "order", "subject": PATIENT}

# By resource type and column: what every resource has, and the elements to sort by.
CASES: dict[tuple[str, str], tuple[Json, list[Json]]] = {
    ("AllergyIntolerance", "msemr_recordeddate"): (ALLERGY, of_element("recordedDate")),
    ("AllergyIntolerance", "msemr_lastoccurrence"): (
        ALLERGY, of_element("lastOccurrence"),
    ),
    ("Appointment", "msemr_starttime"): (
        {"status": "proposed", "participant": [{"actor": PATIENT, "status": "accepted"}]},
        [
            *({"start": at, "end": "2024-02-01T00:00:00Z", "status": "booked"} for at in MOMENTS),
            {},
        ],
    ),
    ("CarePlan", "msemr_planstartdate"): (
        {"status": "active", "intent": "plan", "subject": PATIENT},
        of_periods("period"),
    ),
    ("CareTeam", "msemr_periodstart"): ({"subject": PATIENT}, of_periods("period")),
    ("Claim", "msemr_created"): (CLAIM, of_element("created")[:-1]),
    ("Condition", "msemr_asserteddate"): ({"subject": PATIENT}, of_element("recordedDate")),
    ("DiagnosticReport", "msemr_effectivedate"): (
        {"status": "final", "code": TEXT},
        of_choice("effective"),
    ),
    ("DiagnosticReport", "msemr_issued"): (
        {"status": "final", "code": TEXT},
        of_element("issued", MOMENTS),
    ),
    ("DocumentReference", "msemr_date"): (
        {"status": "current", "content": [{"attachment": {"title": "some"}}]},
        of_element("date", MOMENTS),
    ),
    ("DocumentReference", "msemr_periodstart"): (
        {"status": "current", "content": [{"attachment": {"title": "some"}}]},
        in_context(of_periods("period")),
    ),
    ("Encounter", "msemr_encounterstartdate"): (
        {"status": "planned", "class": {"code": "AMB"}},
        of_periods("period"),
    ),
    ("EpisodeOfCare", "msemr_startdatetime"): (
        {"status": "active", "patient": PATIENT},
        of_periods("period"),
    ),
    ("Goal", "msemr_startdate"): (
        {"lifecycleStatus": "proposed", "description": TEXT, "subject": PATIENT},
        [*of_element("startDate", [text for text in DATES if "T" not in text]), {"startCodeableConcept": TEXT}],
    ),
    ("Immunization", "msemr_occurrencedate"): (
        {"status": "completed", "vaccineCode": TEXT, "patient": PATIENT},
        [*of_element("occurrenceDateTime")[:-1], {"occurrenceString": "some day"}],
    ),
    ("MedicationRequest", "msemr_authoredon"): (
        {**ORDER, "medicationCodeableConcept": TEXT},
        of_element("authoredOn"),
    ),
    ("Observation", "msemr_effectivedate"): (
        {"status": "final", "code": TEXT},
        [
            *of_choice("effective"),
            *({"effectiveInstant": at} for at in MOMENTS),
            {"effectiveTiming": {"event": ["2024-01-01"]}},
        ],
    ),
    ("Procedure", "msemr_performeddate"): (
        {"status": "completed", "subject": PATIENT},
        [*of_choice("performed"), {"performedString": "some day"}],
    ),
    ("ServiceRequest", "msemr_authoredon"): (ORDER, of_element("authoredOn")),
    ("Task", "msemr_executionstart"): (
        {"status": "draft", "intent": "order"},
        of_periods("executionPeriod"),
    ),
    ("Task", "msemr_authoredon"): (
        {"status": "draft", "intent": "order"},
        of_element("authoredOn"),
    ),
    ("Task", "msemr_lastmodified"): (
        {"status": "draft", "intent": "order"},
        of_element("lastModified"),
    ),
}  # fmt: skip


def list_sorted_columns() -> Iterator[tuple[str, str]]:
    for type_, shape in SHAPES.items():
        for name, attribute in shape.attributes.items():
            search = attribute.virtual_column.search
            if search is not None and search.sorts:
                yield type_, name


def test_every_column_that_a_map_sorts_by_is_tried_here() -> None:
    assert set(list_sorted_columns()) == set(CASES)


def test_no_column_that_is_sorted_by_leaves_out_what_fhir_sorts() -> None:
    """FHIR sorts a date without a day by its first one. Where an element is an instant, all have
    a day."""
    instants = {"start", "issued"}
    omitted = {
        (type_, name)
        for type_, name in list_sorted_columns()
        if (attribute := SHAPES[type_].attributes[name]).partial is not PartialDate.FIRST
        and attribute.path not in instants
    }
    assert omitted == {("DocumentReference", "msemr_date")}  # an instant, too


def test_every_table_with_a_date_is_shown_newest_first() -> None:
    unsorted = {name for name, shape in SHAPES.items() if shape.entity.newest_by is None}
    assert unsorted == {"Coverage", "Device", "Location"}


def make_resources(type_: str, column: str) -> list[Json]:
    """Three of each kind, mixed, so that places do not follow from the order of writing."""
    base, elements = CASES[type_, column]
    made = [{"resourceType": type_, **base, **element} for element in elements for _ in range(3)]
    make_random(1).shuffle(made)
    return [{**item, "id": f"r-{number}"} for number, item in enumerate(made)]


def rank(value: str | None) -> tuple[bool, datetime]:
    if value is None:
        return False, datetime.min.replace(tzinfo=UTC)
    return True, datetime.fromisoformat(value)


@pytest.mark.parametrize(("type_", "column"), CASES, ids=lambda part: part)
async def test_a_list_is_in_the_order_of_its_column_and_is_not_gathered(
    feed: Feed, type_: str, column: str
) -> None:
    set_ = SHAPES[type_].type.set
    resources = make_resources(type_, column)
    await feed.put(*resources)
    key = SHAPES[type_].type.key
    for direction in ("asc", "desc"):
        lists = [
            await feed.every(
                set_,
                f"$select={column}&$orderby={column} {direction}",
                prefer=f"odata.maxpagesize={n}",
            )
            for n in (1, 4, 7, 250)
        ]
        values = [row[column] for row in lists[0]]
        assert values == sorted(values, key=rank, reverse=direction == "desc")
        assert len({row[key] for row in lists[0]}) == len(resources)
        # However long the pages are, rows with equal values are in one order.
        assert all(rows == lists[0] for rows in lists)
        # A part of the list has the same order.
        some = await feed.every(
            set_,
            f"$select={column}&$orderby={column} {direction}&$skip=5&$top=9",
            prefer="odata.maxpagesize=4",
        )
        assert some == lists[0][5:14]
        counted = await feed.get(
            set_, f"$select={column}&$orderby={column} {direction}&$count=true"
        )
        assert counted["@odata.count"] == len(resources)
        assert counted["value"] == lists[0]
        first = await feed.get(set_, f"$orderby={column} {direction}", prefer="odata.maxpagesize=4")
        token = httpx.URL(first["@odata.nextLink"]).params["$skiptoken"]
        place = parse_token(token, type_, TOKEN_KEY)
        assert place.path is not None  # a place in FHIR's pages


async def test_a_patient_with_2500_observations_is_shown_by_date(feed: Feed) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    await feed.put(
        *(
            {
                "resourceType": "Observation",
                "id": f"o-{number}",
                "status": "final",
                "code": TEXT,
                "subject": PATIENT,
                "effectiveDateTime": (start + timedelta(hours=number * 7 % 2500)).isoformat(),
            }
            for number in range(2500)
        )
    )
    patient = PATIENT["reference"].partition("/")[2]
    query = f"$filter=_msemr_subjectpatient_value eq {patient}&$select=msemr_effectivedate"
    for options in ("", "&$orderby=msemr_effectivedate desc"):
        feed.asked.clear()
        page = await feed.get("msemr_observations", query + options, prefer="odata.maxpagesize=50")
        shown = [row["msemr_effectivedate"] for row in page["value"]]
        newest = [start + timedelta(hours=2499 - number) for number in range(50)]
        assert [datetime.fromisoformat(text) for text in shown] == newest
        assert len(feed.asked) == 1


# -- newest first ----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["", "&$count=true", "&$filter=startswith(msemr_comment,'some')"])
async def test_without_an_order_a_list_is_newest_first_whatever_else_is_asked(
    feed: Feed, more: str
) -> None:
    dates = ["2024-01-02", "2024-01-04T10:00:00+02:00", "2024-01-04T09:00:00Z", "2024-01-03"]
    for number, text in enumerate([*dates, None]):
        issued = {} if text is None else {"effectiveDateTime": text}
        await feed.put(
            {
                "resourceType": "Observation",
                "id": f"o-{number}",
                "status": "final",
                "code": TEXT,
                "note": [{"text": "some note"}],
                **issued,
            }
        )
    rows = await feed.every(
        "msemr_observations", f"$select=msemr_azurefhirid{more}", prefer="odata.maxpagesize=2"
    )
    assert [row["msemr_azurefhirid"] for row in rows] == ["o-2", "o-1", "o-3", "o-0", "o-4"]


# -- a server that sorts in another way ------------------------------------------------------------


def answer_with(*dates: str | None) -> Callable[[httpx.Request], httpx.Response]:
    """A server that has these observations in this order, whatever is asked."""

    def answer(request: httpx.Request) -> httpx.Response:
        count = int(request.url.params.get("_count", 10))
        start = int(request.url.params.get("from", 0))
        entries: list[Any] = []
        for number, text in list(enumerate(dates))[start : start + count]:
            dated = {} if text is None else {"effectiveDateTime": text}
            resource = {"resourceType": "Observation", "id": f"o-{number}", "status": "final"}
            entries.append({"resource": {**resource, **dated}})
        link = []
        if start + count < len(dates):
            url = f"{FHIR}/Observation?from={start + count}&_count={count}"
            link = [{"relation": "next", "url": url}]
        bundle = {"resourceType": "Bundle", "type": "searchset", "entry": entries, "link": link}
        return httpx.Response(200, content=decimal_json.encode(bundle))

    return answer


@pytest.mark.parametrize(
    "dates",
    [
        ["2024-01-01", "2024-01-03", "2024-01-02"],
        ["2024-01-01", None, "2024-01-02"],
        ["2024-01-01", "2024-01-02", None],  # null comes first
    ],
)
async def test_what_a_server_has_in_another_order_than_the_map_promises_is_sorted_here(
    dates: list[str | None],
) -> None:
    async with scripted(answer_with(*dates)) as feed:
        query = "$select=msemr_effectivedate&$orderby=msemr_effectivedate"
        rows = await feed.every("msemr_observations", query)
        paged = await feed.every("msemr_observations", query, prefer="odata.maxpagesize=3")
    values = [row["msemr_effectivedate"] for row in rows]
    assert values == sorted(values, key=rank)
    assert paged == rows


async def test_an_order_that_turns_out_wrong_on_a_later_page_is_an_error() -> None:
    dates = ["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-03"]
    async with scripted(answer_with(*dates)) as feed:
        query = "$orderby=msemr_effectivedate"
        with pytest.raises(Misconfigured, match="does not sort by msemr_effectivedate"):
            await feed.every("msemr_observations", query, prefer="odata.maxpagesize=2")
