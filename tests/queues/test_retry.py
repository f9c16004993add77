"""When failed work is tried again."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest

from integration.core.errors import IntegrationError, Misconfigured, Unavailable, UnitConflict
from integration.core.model import WorkItem
from integration.queues.queue_sender import MemoryQueueSender, parse_work_item
from integration.queues.retry import count_conflicts, plan_retry

NOW = datetime.fromisoformat("2024-05-06T07:08:09Z")
DAY = 24 * 3600.0
DOWN = Unavailable("FHIR server", "answered 503")
CLAIM = WorkItem("0190a1b2-0000-7000-8000-000000000001", lane=2)


def delays(error: IntegrationError, attempts: int) -> list[float | None]:
    """Return the delay after each of the first attempts, all at the same time."""
    found, claim = [], CLAIM
    for _ in range(attempts):
        back = plan_retry(claim, error, NOW, DAY)
        claim = back.item
        found.append(back.delay)
    return found


def test_the_delay_doubles_at_each_attempt() -> None:
    assert delays(DOWN, 5) == [2, 4, 8, 16, 32]


def test_the_delay_never_grows_beyond_a_quarter_of_an_hour() -> None:
    assert delays(DOWN, 40)[-30:] == [900] * 30


@pytest.mark.parametrize("attempt", [0, 9, 16, 5000])
def test_no_number_of_attempts_ends_the_retries(attempt: int) -> None:
    claim = WorkItem(CLAIM.delivery, attempt=attempt, since=NOW.timestamp() - 60)
    assert plan_retry(claim, DOWN, NOW, DAY).delay is not None


@pytest.mark.parametrize(
    ("attempt", "wish", "delay"), [(0, 120.0, 120.0), (6, 1.0, 128.0), (0, 4000.0, 4000.0)]
)
def test_the_delay_is_at_least_as_long_as_the_upstream_asks_for(
    attempt: int, wish: float, delay: float
) -> None:
    error = Unavailable("FHIR server", "answered 429", retry_after=wish)
    assert plan_retry(WorkItem("d", attempt=attempt), error, NOW, DAY).delay == delay


def test_work_that_waits_for_an_operator_waits_for_about_as_long_as_the_trouble_lasts() -> None:
    assert delays(Misconfigured("Dataverse answered 403"), 6) == [60, 120, 240, 480, 900, 900]


@pytest.mark.parametrize(
    ("age", "given_up"), [(0.0, False), (DAY - 1, False), (DAY, True), (DAY + 1, True)]
)
def test_age_ends_the_retries(age: float, given_up: bool) -> None:
    claim = WorkItem("d", since=NOW.timestamp() - age)
    assert (plan_retry(claim, DOWN, NOW, DAY).delay is None) is given_up


def test_the_last_attempt_is_made_when_the_age_is_reached() -> None:
    """An upstream that asks for more than MAX_AGE may be well by then."""
    asked = Unavailable("Dataverse", "answered 429", retry_after=4 * DAY)
    back = plan_retry(CLAIM, asked, NOW, 3 * DAY)
    assert back.delay == 3 * DAY
    assert plan_retry(back.item, asked, NOW + timedelta(days=3), 3 * DAY).delay is None


def test_a_delay_is_never_longer_than_a_queue_can_hide_a_message() -> None:
    asked = Unavailable("Dataverse", "answered 429", retry_after=8 * DAY)
    delay = plan_retry(CLAIM, asked, NOW, 30 * DAY).delay
    assert delay is not None
    assert 6.9 * DAY < delay < 7 * DAY


def test_the_age_is_counted_from_the_first_failure() -> None:
    first = plan_retry(CLAIM, DOWN, NOW, DAY).item
    later = plan_retry(first, DOWN, NOW + timedelta(hours=5), DAY).item
    assert first.since == later.since == NOW.timestamp()


def test_a_retry_is_for_the_same_work() -> None:
    again = plan_retry(CLAIM, DOWN, NOW, DAY).item
    assert (again.delivery, again.lane, again.resource) == (CLAIM.delivery, 2, None)
    assert again.attempt == 1


def test_only_conflicts_of_the_same_unit_are_counted_together() -> None:
    conflict = UnitConflict("FHIR server", "answered 409", unit="0.1")
    item = plan_retry(CLAIM, DOWN, NOW, DAY).item
    assert count_conflicts(item, "0.1") == 0
    for _ in range(2):
        item = plan_retry(item, conflict, NOW, DAY).item
        item = plan_retry(item, DOWN, NOW, DAY).item
    assert (count_conflicts(item, "0.1"), count_conflicts(item, "0.2")) == (2, 0)
    item = plan_retry(item, UnitConflict("FHIR server", "409", unit="0.2"), NOW, DAY).item
    assert (count_conflicts(item, "0.1"), count_conflicts(item, "0.2")) == (0, 1)


def test_a_retry_that_is_given_up_has_the_work_item() -> None:
    back = plan_retry(WorkItem("d", lane=3, since=0), DOWN, NOW, DAY)
    assert back.delay is None
    assert back.item.lane == 3


def test_a_work_item_survives_the_queue() -> None:
    claim = WorkItem("d", lane=1, resource="Patient/1", attempt=2, since=3.5)
    assert parse_work_item(msgspec.json.encode(claim)) == claim


@pytest.mark.parametrize("body", [b"", b"{}", b"hello", b'{"delivery": 7}', b"[]"])
def test_a_message_that_is_no_work_item_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse_work_item(body)


async def test_the_double_keeps_work_items_in_the_order_of_sending() -> None:
    queue = MemoryQueueSender()
    await queue.send("relay", WorkItem("a"))
    await queue.send("mirror", WorkItem("b", resource="Patient/1"), 2.5)
    assert queue.sent == [
        ("relay", WorkItem("a"), 0),
        ("mirror", WorkItem("b", resource="Patient/1"), 2.5),
    ]
