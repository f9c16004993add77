"""Notifications are answered at once, counted, and processed where they have resources."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from integration.core.errors import Rejected, Unavailable
from integration.core.model import WorkItem
from integration.intake.accept import Accepted
from integration.intake.subscriptions import Acknowledged
from integration.journal.store import MemoryJournal
from integration.queues.names import RELAY_QUEUE
from tests.builders import MARKER, bundle, entry, patient
from tests.conftest import Route, told_by
from tests.fhir.notices import (
    HOME,
    SUBSCRIPTION,
    VERSIONS,
    make_full_entry,
    make_named_entry,
    make_notification,
)

ANNA = patient(id="anna")


def event(*numbers: int, **more: Any) -> dict[str, Any]:
    """A notification of these events, with a resource."""
    return make_notification(
        make_full_entry(ANNA), events=tuple((n, None) for n in numbers), **more
    )


def beat(count: int, **more: Any) -> dict[str, Any]:
    return make_notification(kind="heartbeat", since=count, **more)


async def gap(route: Route, made: dict[str, Any], **asked: Any) -> str | None:
    """Return what is recorded as missing before this notification."""
    accepted = await route.ask(made, **asked)
    assert isinstance(accepted, Accepted)
    return (await route.known(accepted.delivery)).gap


def warnings(caplog: pytest.LogCaptureFixture) -> list[int]:
    """How many events each warning says are missing."""
    found = [record for record in caplog.records if record.message == "notification.gap"]
    assert all(record.levelno == logging.WARNING for record in found)
    return [int(vars(record)["missed"]) for record in found]


# --- without resources -------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["handshake", "heartbeat", "event-notification"])
async def test_a_notification_without_resources_is_answered_and_not_queued(
    route: Route, kind: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await route.ask(make_notification(kind=kind, version=version))
    assert answer == Acknowledged(kind)
    assert (route.queue_sender.sent, route.journal.deliveries, route.journal.payloads) == (
        [],
        {},
        {},
    )
    event = "notification.empty" if kind == "event-notification" else f"notification.{kind}"
    assert [record.message for record in caplog.records] == [event]


async def test_a_handshake_leaves_no_trace(route: Route) -> None:
    await route.ask(make_notification(kind="handshake", since=7))
    assert route.journal.events == {}


async def test_a_handshake_needs_no_storage(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any) -> Any:
        raise Unavailable("storage", "ServiceRequestError")

    for name in ("get_newest_event", "record_event", "claim_key", "add_delivery"):
        monkeypatch.setattr(MemoryJournal, name, away)
    assert await route.ask(make_notification(kind="handshake")) == Acknowledged("handshake")


@pytest.mark.parametrize("kind", ["query-status", "query-event"])
async def test_the_answer_to_a_query_is_refused(route: Route, kind: str) -> None:
    with pytest.raises(Rejected) as caught:
        await route.ask(make_notification(make_full_entry(ANNA), kind=kind))
    assert caught.value.status == 422
    assert route.queue_sender.sent == []


# --- with resources ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_notification_with_a_resource_is_kept_and_queued(
    route: Route, version: str
) -> None:
    accepted = await route.ask(event(1, version=version))
    assert route.queue_sender.sent == [(RELAY_QUEUE, WorkItem(accepted.delivery), 0)]
    known = await route.known(accepted.delivery)
    assert (known.kind, known.entries, known.gap) == ("notification", 2, None)


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_resource_is_written_and_the_status_is_not(route: Route, version: str) -> None:
    delivery = await route.deliver(event(1, version=version))
    await route.process_all(delivery)
    assert list(route.fhir_double.stored) == ["Patient/anna"]
    assert await route.statuses(delivery) == [204, 201]
    (issue,) = (await route.outcomes(delivery))[0].issues or []
    assert issue["severity"] == "information"


async def test_the_sender_sees_what_is_left_out_but_not_yet_what_may_be_fetched(
    route: Route,
) -> None:
    accepted = await route.ask(
        make_notification(make_named_entry("Patient/bert"), make_full_entry(ANNA))
    )
    assert [issue.expression for issue in accepted.refused] == ["Bundle.entry[0]"]


async def test_a_repeated_notification_is_processed_again_and_writes_nothing_anew(
    route: Route,
) -> None:
    for _ in range(3):
        await route.process_all(await route.deliver(event(1)))
    assert list(route.fhir_double.stored) == ["Patient/anna"]


# --- gaps --------------------------------------------------------------------------------------


async def test_events_one_after_the_other_leave_no_gap(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    for numbers in ((1,), (2, 3), (4,)):
        assert await gap(route, event(*numbers)) is None
    await route.ask(beat(4))
    assert warnings(caplog) == []


async def test_a_gap_is_recorded_with_the_delivery_and_logged_once(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    await route.ask(event(3, 2, 1))
    assert await gap(route, event(7)) == "events 4 to 6 of the subscription were not received"
    assert await gap(route, event(8)) is None
    assert warnings(caplog) == [3]


async def test_the_first_notification_of_a_subscription_shows_what_came_before(
    route: Route,
) -> None:
    assert await gap(route, event(2)) == "event 1 of the subscription was not received"


async def test_a_heartbeat_shows_a_gap_as_well(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    await route.ask(event(1))
    for _ in range(2):
        await route.ask(beat(3))
    assert warnings(caplog) == [2]


async def test_an_event_without_content_counts(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 4):
        await route.ask(make_notification(events=((number, None),)))
    assert warnings(caplog) == [1]


async def test_a_late_or_repeated_event_is_processed_and_is_no_gap(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 4, 2, 3, 3, 5):
        await route.process_all(await route.deliver(event(number)))
    assert warnings(caplog) == [2]
    assert route.journal.events == {("default", SUBSCRIPTION): 5}


async def test_subscriptions_and_senders_are_counted_apart(route: Route) -> None:
    for sender in ("a", "b"):
        for subscription in (f"{HOME}/Subscription/s1", f"{HOME}/Subscription/s2"):
            made = event(1, subscription=subscription)
            assert await gap(route, made, sender=sender) is None


async def test_a_repeat_after_a_failed_request_has_the_same_gap(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise Unavailable("storage", "ServiceRequestError")

    with monkeypatch.context() as broken:
        broken.setattr(type(route.queue_sender), "send", away)
        with pytest.raises(Unavailable):
            await route.ask(event(3))
    assert await gap(route, event(3)) == "events 1 to 2 of the subscription were not received"


async def test_a_transaction_is_never_read_as_a_notification(route: Route) -> None:
    made = bundle(entry({"resourceType": "Parameters"}), entry(ANNA))
    accepted = await route.ask(made)
    assert (await route.known(accepted.delivery)).kind == "transaction"


async def test_nothing_of_a_notification_is_in_a_log(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    subscription = f"{HOME}/Subscription/{MARKER}"
    await route.ask(event(3, subscription=subscription))
    await route.ask(beat(9, subscription=subscription))
    await route.ask(make_notification(kind="handshake", subscription=subscription))
    assert len(caplog.records) == 5
    assert MARKER not in told_by(caplog.records)
    assert MARKER not in json.dumps(
        [str(delivery) for delivery in route.journal.deliveries.values()]
    )
