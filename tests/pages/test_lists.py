"""The lists Attention and Deliveries: filtered, paged, and what can be done about all of them."""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from typing import Any

import pytest

from integration.core.model import Status
from integration.journal.concern import Concern, ConcernKind, build_concern_id
from integration.pages.attention import KINDS
from integration.pages.filters import build_query
from tests.builders import MARKER, batch, entry, observation, patient
from tests.conftest import Route
from tests.pages.asking import Shown, visit


async def deliver(route: Route, sender: str, *, parked: str = "") -> str:
    """Return the id of a delivery, which is parked for this reason."""
    route.clock.later(60)
    id_ = await route.deliver(patient(id=f"{sender}-1"), sender=sender)
    if parked:
        await route.journal.update_delivery(id_, status=Status.PARKED, reason=parked)
    return id_


async def raise_concerns(route: Route, kind: ConcernKind, number: int = 1, **fields: str) -> None:
    for index in range(number):
        since = route.clock() - timedelta(minutes=index)
        values = {"delivery": f"delivery-{index}", "sender": "north", "reason": "503", **fields}
        id_ = build_concern_id(since, f"{kind} {index} {values}")
        await route.journal.put_concern(Concern(id=id_, since=since, kind=kind, **values))


class CountedJournal:
    """A journal that counts how often concerns are listed."""

    def __init__(self, journal: Any) -> None:
        self.journal, self.lists = journal, 0

    async def list_concerns(self, *arguments: Any) -> Any:
        self.lists += 1
        return await self.journal.list_concerns(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.journal, name)


def get_offers(page: Shown) -> list[str]:
    """Where jobs are offered."""
    return [link for link in page.links if link.startswith("/api/pages/jobs/new")]


def get_deliveries(page: Shown) -> list[str]:
    return [link.rpartition("/")[2] for link in page.links if "/pages/deliveries/" in link]


# --- attention ------------------------------------------------------------------------------------


async def test_where_nothing_needs_attention_it_says_so(route: Route) -> None:
    visitor = visit(route, "reader")
    assert (
        "Nothing is parked, held, refused or waits for you" in (await visitor.get("attention")).text
    )
    assert "Nothing of this kind" in (await visitor.get("attention", kind="held")).text


@pytest.mark.parametrize("kind", ConcernKind)
async def test_each_kind_is_shown_with_its_reason_and_what_to_do(
    route: Route, kind: ConcernKind
) -> None:
    await raise_concerns(route, kind)
    page = await visit(route, "operator").get("attention", kind=kind)
    (row,) = [cells for cells in page.rows if cells[0] == KINDS[kind]]
    _, why, where, _, sender = row
    reason, _, todo = why.partition(" ")
    assert reason == "503"
    assert len(todo) > 20
    assert where == "delivery delivery-0"
    assert sender == "north"
    assert "/api/pages/deliveries/delivery-0" in page.links
    # What waits for another record is written when that one comes.
    assert bool(get_offers(page)) is (kind is not ConcernKind.ROW_INCOMPLETE)


async def test_a_refused_entry_and_a_row_are_named_without_a_patient(route: Route) -> None:
    route.fhir_double.refuses.add("Observation")
    people = batch(entry(patient(id="p1"), method="PUT"), entry(observation()))
    id_ = await route.deliver(people, sender="north")
    await route.process_all(id_)
    await raise_concerns(route, ConcernKind.ROW_PARKED, resource="Patient/p1")
    page = await visit(route, "reader").get("attention")
    assert re.search(r"delivery [-0-9a-f ]+ entry 1 ", page.text)
    assert id_ in get_deliveries(page)
    assert MARKER not in page.html
    assert "Patient/p1" in page.text
    assert "/api/pages/patients/p1" not in page.links
    assert "/api/pages/patients/p1" in (await visit(route, "reader", "phi").get("attention")).links


async def test_its_filters_choose_and_its_pages_keep_them(route: Route) -> None:
    await raise_concerns(route, ConcernKind.PARKED, 60)
    await raise_concerns(route, ConcernKind.PARKED, 1, sender="west", reason="of west")
    await raise_concerns(route, ConcernKind.ENTRIES, 1, reason="of entries")
    visitor = visit(route, "reader")
    every = await visitor.get("attention", kind="parked", sender="north")
    assert "of west" not in every.text
    assert "of entries" not in every.text
    (behind,) = [link for link in every.links if "same_reason=" in link]
    page = await visitor.get(behind)
    (older,) = [link for link in page.links if "after=" in link]
    assert "kind=parked&sender=north&same_reason=503" in older
    last = await visitor.get(older)
    first = {*get_deliveries(page)}
    assert len(first) == 50
    assert len({*get_deliveries(last)} - first) == 10
    assert "/api/pages/attention?kind=parked&sender=north&same_reason=503" in last.links
    assert "/api/pages/attention?kind=parked&sender=north" in last.links, "every reason"


async def test_equal_reasons_of_a_kind_and_a_sender_are_one_line_with_their_number(
    route: Route,
) -> None:
    await raise_concerns(route, ConcernKind.PARKED, 1200)
    await raise_concerns(route, ConcernKind.PARKED, 2, sender="west")
    await raise_concerns(route, ConcernKind.HELD, 3)
    await raise_concerns(route, ConcernKind.PARKED, 1, reason="404")
    journal = CountedJournal(route.journal)
    page = await visit(route, "operator", journal=journal).get("attention")
    assert journal.lists == 1, "one operation, however many there are"
    shown = [(row[0].replace("\u00d7", "x"), row[2], row[4]) for row in page.rows[1:]]
    assert sorted(shown) == [
        ("delivery held x 3", "See all 3, or more", "north"),
        ("delivery parked", "delivery delivery-0", "north"),
        ("delivery parked x 2", "See all 2, or more", "west"),
        ("delivery parked x 994", "See all 994, or more", "north"),
    ]
    assert "1 000 things, the newest, with 4 reasons" in page.text


async def test_what_has_one_reason_is_listed_and_replayed_without_what_has_another(
    route: Route,
) -> None:
    """The one reason begins as the other one does."""
    id_ = await deliver(route, "north")
    await raise_concerns(route, ConcernKind.ROW_PARKED, 3, delivery=id_)
    await raise_concerns(route, ConcernKind.ROW_PARKED, 1, delivery=id_, reason="503 and more")
    operator = visit(route, "operator")
    (behind,) = [link for link in (await operator.get("attention")).links if "same_reason=" in link]
    page = await operator.get(behind)
    assert len(page.rows) == 4
    assert "503 and more" not in page.text
    (offer,) = get_offers(page)
    asked = await operator.get(offer)
    assert "Replay 3 rows?" in asked.text
    assert behind in asked.links


async def test_what_can_be_done_is_offered_for_what_is_shown_and_to_operators(route: Route) -> None:
    await raise_concerns(route, ConcernKind.PARKED)
    operator = visit(route, "operator")
    page = await operator.get("attention", kind="parked", sender="north")
    assert get_offers(page) == [
        f"/api/pages/jobs/new?concern=parked&sender=north&do={do}" for do in ("replay", "cancel")
    ]
    every = await operator.get("attention")
    assert get_offers(every) == []
    assert "Choose what is shown to replay or cancel all that match" in every.text
    reader = operator.with_roles("reader", "phi")
    assert get_offers(await reader.get("attention", kind="parked")) == []
    assert "Choose what is shown" not in (await reader.get("attention")).text


async def test_the_job_that_is_offered_for_a_kind_counts_what_its_list_shows(route: Route) -> None:
    id_ = await deliver(route, "north")
    await raise_concerns(route, ConcernKind.ROW_PARKED, 2, delivery=id_)
    await raise_concerns(route, ConcernKind.ROW_REFUSED, 3, delivery=id_)
    operator = visit(route, "operator")
    (offer,) = get_offers(await operator.get("attention", kind="row-refused"))
    asked = await operator.get(offer)
    assert "Replay 3 rows?" in asked.text
    assert "/api/pages/attention?kind=row-refused" in asked.links


@pytest.mark.parametrize(
    "fields", [{"kind": "lost"}, {"after": "nothing"}, {"status": "parked"}, {"_count": "5"}]
)
async def test_a_wrong_field_of_attention_is_refused(route: Route, fields: dict[str, str]) -> None:
    assert (await visit(route, "reader").get("attention", **fields)).status == 400


# --- deliveries -----------------------------------------------------------------------------------


async def test_where_no_delivery_came_it_says_where_they_come(route: Route) -> None:
    visitor = visit(route, "reader")
    assert "No delivery has come yet" in (await visitor.get("deliveries")).text
    assert "No delivery matches" in (await visitor.get("deliveries", sender="north")).text


async def test_deliveries_are_shown_without_a_patient_and_the_newest_first(route: Route) -> None:
    first, second = await deliver(route, "north"), await deliver(route, "west", parked="too old")
    page = await visit(route, "reader", "phi").get("deliveries")
    assert get_deliveries(page) == [second, first]
    assert page.rows[1][1:4] == ["parked too old", "west", "resource"]
    assert MARKER not in page.html
    oldest = await visit(route, "reader").get("deliveries", sort="oldest", status="accepted")
    for other in ({"status": "done"}, {"attention": "any"}, {}):  # chosen in the form since
        assert (
            await visit(route, "reader").get("deliveries", sort="oldest", **other)
        ).status == 200
    assert get_deliveries(oldest) == [first]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"sender": "west"}, ["west"]),
        ({"status": "accepted"}, ["north"]),
        ({"status": "parked", "reason": "old"}, ["west"]),
        ({"reason": "nothing of it"}, []),
        ({"kind": "resource"}, ["west", "north"]),
        ({"kind": "batch"}, []),
        ({"since": "2026-03-01T19:47"}, ["west"]),
        ({"until": "2026-03-01T19:46:59"}, ["north"]),
        ({"since": "2026-03-01T19:46", "until": "2026-03-01T19:46:59Z"}, ["north"]),
        ({"sender": "", "status": ""}, ["west", "north"]),
    ],
)
async def test_filters_choose_deliveries(
    route: Route, fields: dict[str, str], found: list[str]
) -> None:
    ids = {
        "north": await deliver(route, "north"),  # accepted at 19:46 UTC
        "west": await deliver(route, "west", parked="too old"),  # at 19:47
    }
    page = await visit(route, "reader").get("deliveries", **fields)
    assert page.status == 200
    assert get_deliveries(page) == [ids[name] for name in found]
    for name, value in fields.items():
        assert not value or f'value="{value}"' in page.html, name  # the form keeps it


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("2026-03-02T07:30", "2026-03-02T07:30Z"),
        ("2026-03-02T07:30:05", "2026-03-02T07:30:05Z"),
        ("2026-03-02T07:30:05.123", "2026-03-02T07:30:05.123Z"),
        ("2026-03-02T07:30:05Z", "2026-03-02T07:30:05Z"),
        ("2026-03-02", "2026-03-02"),
        ("2026-03-02T07:30:05+05:30", "2026-03-02T07:30:05+05:30"),
    ],
)
def test_a_time_without_a_zone_is_in_utc(value: str, asked: str) -> None:
    fields = {"since": value, "until": value, "reason": "a reason of 16 .", "sender": "x"}
    assert build_query(fields) == {**fields, "since": asked, "until": asked}


async def test_its_pages_keep_the_filters(route: Route) -> None:
    ids = [await deliver(route, "north") for _ in range(51)]
    await deliver(route, "west")
    visitor = visit(route, "reader")
    fields = {"sender": "north", "since": "2026-03-01T00:00"}
    page = await visitor.get("deliveries", **fields)
    assert get_deliveries(page) == ids[:0:-1]
    (older,) = [link for link in page.links if "after=" in link]
    assert older.startswith("/api/pages/deliveries?sender=north&since=2026-03-01T00%3A00&after=")
    last = await visitor.get(older)
    assert get_deliveries(last) == ids[:1]
    assert "/api/pages/deliveries?sender=north&since=2026-03-01T00%3A00" in last.links


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"status": "lost"}, "status must be one of"),
        ({"since": "yesterday"}, "since must be a date"),
        ({"after": "nothing"}, "after must be the id of a delivery"),
        ({"attention": "none"}, "attention must be one of"),
        ({"resource": "Patient/1"}, "the field resource is not known"),
        ({"_count": "500"}, "the field _count is not known"),
    ],
)
async def test_a_wrong_field_is_refused_with_a_sentence(
    route: Route, fields: dict[str, str], why: str
) -> None:
    page = await visit(route, "reader").get("deliveries", **fields)
    assert page.status == 400
    assert why in page.text


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        ({}, []),
        ({"sender": "north"}, ["replay"]),
        ({"status": "parked"}, ["replay", "cancel"]),
        ({"status": "accepted"}, ["cancel"]),
        ({"status": "done"}, []),
        ({"attention": "entries"}, ["replay"]),
        ({"attention": "delivery"}, ["replay", "cancel"]),
        ({"status": "parked", "sort": "oldest"}, []),
        ({"waiting": "true"}, ["replay", "cancel"]),
        ({"waiting": "true", "sender": "north", "status": "accepted"}, ["replay", "cancel"]),
    ],
)
async def test_jobs_are_offered_where_they_do_what_the_list_shows(
    route: Route, fields: dict[str, str], offered: list[str]
) -> None:
    page = await visit(route, "operator").get("deliveries", **fields)
    assert [link.rpartition("do=")[2] for link in get_offers(page)] == offered
    assert get_offers(await visit(route, "reader").get("deliveries", **fields)) == []


async def test_the_lists_need_the_role_of_a_reader(route: Route) -> None:
    for path in ("attention", "deliveries"):
        assert (await visit(route, "phi").get(path)).status == 403


async def test_what_waits_is_chosen_shown_with_its_attempts_and_started_after_a_count(
    route: Route,
) -> None:
    waits: dict[str, Any] = {
        "waiting": route.clock(),
        "attempts": 3,
        "next_attempt": route.clock() + timedelta(minutes=4),
        "reason": "FHIR server: answered 503",
    }
    for sender in ("north", "north", "west"):
        await route.journal.update_delivery(await deliver(route, sender), **waits)
    await deliver(route, "north")
    operator = visit(route, "operator")
    page = await operator.get("deliveries", waiting="true", sender="north")
    assert len(get_deliveries(page)) == 2
    due = f"{waits['next_attempt'].astimezone(UTC):%H:%M:%S}"
    assert re.search(
        rf"Waits since [-0-9: ]+ UTC ; 3.attempts failed; the next one .*{due}", page.text
    )
    offer = get_offers(page)[0]
    asked = await operator.get(offer)
    assert "Try now: 2 deliveries?" in asked.text
    assert "its own next attempt stays" in asked.text
    begun = await operator.post("jobs", do="replay", waiting="true", sender="north")
    job = await operator.parts.jobs.jobs.get_job(begun.location.removeprefix("jobs/"))
    assert job is not None
    assert job.filter.criteria.waiting
    assert "Try now" in (await operator.get(begun.location)).text


async def test_a_row_that_waits_is_shown_with_its_attempts(route: Route) -> None:
    due = route.clock() + timedelta(minutes=1)
    await route.journal.put_concern(
        Concern(
            id=build_concern_id(route.clock(), "Patient/p1"),
            since=route.clock(),
            kind=ConcernKind.ROW_WAITING,
            delivery="delivery",
            sender="north",
            reason="contact has no column x",
            resource="Patient/p1",
            attempts=2,
            next_attempt=due,
        )
    )
    text = (await visit(route, "reader").get("attention")).text
    assert re.search(
        rf"2.attempts failed; the next one [-0-9]+ {due.astimezone(UTC):%H:%M:%S}", text
    )
