"""A file in a sender's folder is a delivery of that sender, and its answer is a file again."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from integration.core.byte_budget import ByteBudget
from integration.core.errors import Unavailable
from integration.core.model import Delivery, Rights, Status, WorkItem
from integration.intake import inbox as inboxes
from integration.intake.inbox import UnreadableMessage, queue_left_files, take_files
from integration.journal.inbox_files import InboxFile, MemoryInboxFiles
from integration.journal.store import MemoryJournal, Payload
from integration.operations import deliveries
from integration.queues.names import ANSWER_QUEUE, INBOX_QUEUE, RELAY_QUEUE
from integration.senders.model import SenderPolicy
from tests.builders import MARKER, batch, bundle, entry, observation, patient
from tests.conftest import Route, told_by
from tests.doubles import Clock
from tests.fhir.notices import make_notification
from tests.intake.mailing import (
    Mailing,
    as_gzip,
    as_json,
    as_zip,
    make_event,
    make_mailing,
)

NAME = f"lab/{MARKER}.json"
TWO = as_json(batch(entry(patient()), entry(observation())))


@pytest.fixture
def mailing(route: Route) -> Mailing:
    return make_mailing(route)


def kept(mailing: Mailing) -> list[Delivery]:
    return list(mailing.route.journal.deliveries.values())


def statuses(mailing: Mailing, answer: str) -> list[str]:
    return [each["response"]["status"] for each in mailing.answer(answer)["entry"]]


# --- what becomes of a file --------------------------------------------------------------------


async def test_a_file_becomes_a_delivery_of_its_folder_s_sender(mailing: Mailing) -> None:
    await mailing.send(NAME, TWO)
    (delivery,) = kept(mailing)
    assert (delivery.sender, delivery.kind, delivery.entries) == ("lab", "batch", 2)
    assert (await mailing.route.journal.get_payload(delivery.id)).body == TWO
    assert mailing.route.queued() == [(WorkItem(delivery.id), 0)]
    assert mailing.files.files == {}
    assert mailing.files.answers == {}


async def test_its_answer_is_a_file_of_the_same_name_when_it_has_ended(mailing: Mailing) -> None:
    await mailing.send(NAME, TWO)
    await mailing.finish()
    answer = mailing.answer(f"{NAME}.json")
    assert (answer["resourceType"], answer["type"]) == ("Bundle", "batch-response")
    assert statuses(mailing, f"{NAME}.json") == ["201", "201"]
    assert kept(mailing)[0].answer_due is False


@pytest.mark.parametrize("policy", [SenderPolicy(), SenderPolicy(write_order="off")])
async def test_the_policy_of_the_sender_holds(route: Route, policy: SenderPolicy) -> None:
    mailing = make_mailing(route, policy=policy)
    await mailing.send(NAME, TWO)
    assert kept(mailing)[0].write_order == (policy.write_order or "arrival")


async def test_what_the_sender_may_not_is_refused_in_the_answer(route: Route) -> None:
    mailing = make_mailing(route, rights=Rights(types=("Patient",)))
    await mailing.send(NAME, TWO)
    await mailing.finish()
    assert statuses(mailing, f"{NAME}.json") == ["201", "403"]


async def test_gzip_and_ndjson_are_taken_as_what_they_hold(mailing: Mailing) -> None:
    lines = as_json(patient()) + b"\n" + as_json(patient())
    await mailing.send("lab/a.ndjson.gz", as_gzip(lines))
    (delivery,) = kept(mailing)
    assert (delivery.kind, delivery.entries) == ("ndjson", 2)
    assert (await mailing.route.journal.get_payload(delivery.id)).body == lines


async def test_each_member_of_a_zip_is_a_delivery_with_an_answer(mailing: Mailing) -> None:
    one, other = as_json(patient(id="a")), b"no JSON"
    await mailing.send("lab/day.zip", as_zip(("a.json", one), ("b.json", other), ("c/d", TWO)))
    await mailing.finish()
    assert {each.entries for each in kept(mailing)} == {1, 2}
    assert set(mailing.files.answers) == {
        "lab/day.zip/a.json.json",
        "lab/day.zip/b.json.json",
        "lab/day.zip/c/d.json",
    }
    assert statuses(mailing, "lab/day.zip/a.json.json") == ["201"]
    assert "JSON" in mailing.problem("lab/day.zip/b.json.json")
    assert mailing.files.files == {}


async def test_a_notification_without_resources_is_answered_at_once(mailing: Mailing) -> None:
    await mailing.send("lab/n.json", as_json(make_notification(kind="handshake")))
    assert "acknowledged" in mailing.problem("lab/n.json.json")
    assert kept(mailing) == []
    assert mailing.files.files == {}


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("lab/a.json", b"<Bundle/>", "JSON"),
        ("lab/a.json", b"", "JSON"),
        ("lab/a.gz", b"no gzip", "not valid gzip"),
        ("lab/a.zip", b"no zip", "cannot be read"),
        ("lab/a.zip", as_zip(("../a", TWO)), "leads out"),
        ("lab/a", as_zip(("a", b" " * 50_000_000)), "bytes together"),
        ("lab/a.gz", as_gzip(b" " * 50_000_000), "when it is decompressed"),
        ("lab/a.json", b"1" * 1_000_001, "larger than 1000000 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_file_that_is_no_delivery_is_answered_and_deleted(
    mailing: Mailing, name: str, content: bytes, problem: str
) -> None:
    await mailing.send(name, content)
    assert problem in mailing.problem(f"{name}.json")
    assert mailing.files.files == {}
    assert kept(mailing) == []
    assert mailing.route.queue_sender.sent == []


async def test_of_a_zip_with_two_members_of_one_name_nothing_is_taken(mailing: Mailing) -> None:
    with warnings.catch_warnings(action="ignore"):
        body = as_zip(("a.json", TWO), ("a.json", as_json(patient())))
    await mailing.send("lab/a.zip", body)
    assert "has the name of another" in mailing.problem("lab/a.zip.json")
    assert kept(mailing) == []


async def test_a_file_that_is_too_large_is_not_read(mailing: Mailing) -> None:
    class Unread(MemoryInboxFiles):
        async def read(self, file: InboxFile) -> bytes | None:
            raise AssertionError("it is read")

    mailing.files = Unread(mailing.route.clock)
    await mailing.send("lab/a.json", b"1" * 1_000_001)
    assert "larger than" in mailing.problem("lab/a.json.json")


async def test_where_refusals_would_stop_a_feed_the_file_is_held(mailing: Mailing) -> None:
    await mailing.send("held/a.json", b"no JSON")
    (delivery,) = kept(mailing)
    assert (delivery.status, delivery.sender) == (Status.PARKED, "held")
    assert (mailing.files.files, mailing.files.answers) == ({}, {})


async def test_a_name_is_used_once_and_its_answer_stays(mailing: Mailing) -> None:
    await mailing.send("lab/a.json", TWO)
    await mailing.finish()
    await mailing.send("lab/a.json", as_json(patient()))
    await mailing.finish()
    assert statuses(mailing, "lab/a.json.json") == ["201", "201"]
    assert "use a new name" in mailing.problem("lab/a.json.refused.json")
    assert len(kept(mailing)) == 1


# --- what is left ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sender"),
    [
        (f"{MARKER}/a.json", None),
        (f"{MARKER}.json", None),
        ("web/a.json", "web"),
        (f"lab/{MARKER}{'a' * 500}", "lab"),
        ("lab", None),
    ],
)
async def test_what_is_in_no_sender_s_folder_is_left_and_logged_without_its_name(
    mailing: Mailing, caplog: pytest.LogCaptureFixture, name: str, sender: str | None
) -> None:
    caplog.set_level(logging.DEBUG)
    await mailing.send(name, TWO)
    assert set(mailing.files.files) == {name}
    (record,) = [each for each in caplog.records if each.message == "inbox.left"]
    if name != "lab":  # a file beside the folders, with the name of one
        assert getattr(record, "sender", None) == sender
    assert MARKER not in told_by(caplog.records)


@pytest.mark.parametrize("name", ["lab/a.json.part", "lab/a.FILEPART", "lab/a.tmp"])
async def test_what_is_still_being_sent_is_left_alone(mailing: Mailing, name: str) -> None:
    await mailing.send(name, TWO)
    mailing.route.clock.later(7200)
    await queue_left_files(mailing.inbox)
    assert set(mailing.files.files) == {name}
    assert mailing.route.queue_sender.sent == []


@pytest.mark.parametrize("api", ["CreateFile", "SftpCreate", "SftpWrite"])
async def test_an_upload_is_taken_when_it_has_ended(mailing: Mailing, api: str) -> None:
    mailing.files.put("lab/a.json", b"")
    await mailing.hear("lab/a.json", api=api)
    assert set(mailing.files.files) == {"lab/a.json"}
    await mailing.send("lab/a.json", TWO)
    assert len(kept(mailing)) == 1


async def test_a_renamed_file_is_taken(mailing: Mailing) -> None:
    mailing.files.put("lab/a.json", TWO)
    address = "https://account.dfs.core.windows.net/inbox/lab/a.json"
    data = {"api": "RenameFile", "destinationUrl": address, "sourceUrl": f"{address}.part"}
    renamed = {"type": "Microsoft.Storage.BlobRenamed", "data": data}
    await mailing.hear("lab/a.json.part", **renamed)
    assert len(kept(mailing)) == 1


async def test_an_event_in_the_schema_of_event_grid_is_understood(mailing: Mailing) -> None:
    mailing.files.put("lab/a.json", TWO)
    event = json.loads(make_event("lab/a.json"))
    event["eventType"] = event.pop("type")
    await take_files(mailing.inbox, json.dumps([event]).encode())
    assert len(kept(mailing)) == 1


@pytest.mark.parametrize(
    "event",
    [{"container": "deliveries"}, {"type": "Microsoft.Storage.BlobDeleted"}, {"subject": "x"}],
)
async def test_other_events_change_nothing(mailing: Mailing, event: dict[str, Any]) -> None:
    mailing.files.put("lab/a.json", TWO)
    await mailing.hear("lab/a.json", **event)
    assert kept(mailing) == []


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", f'"{MARKER}"'.encode(), b"{}"])
async def test_a_message_that_is_no_event_stays_and_is_not_quoted(
    mailing: Mailing, body: bytes
) -> None:
    with pytest.raises(UnreadableMessage) as caught:
        await take_files(mailing.inbox, body)
    assert MARKER not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_a_name_that_is_encoded_in_its_event_is_found(mailing: Mailing) -> None:
    mailing.files.put("lab/day one.json", TWO)
    await mailing.hear("lab/day%20one.json")
    assert len(kept(mailing)) == 1


async def test_an_encoded_name_leads_to_no_other_folder(mailing: Mailing) -> None:
    """Some clients of storage would make `slow/a.json` of the first of them."""
    names = ("lab/../slow/a.json", "lab%2F..%2Fslow/a.json", "lab/%2e%2e/slow/a.json")
    for name in (*names, "lab//a.json", "slow/a.json"):
        mailing.files.put(name, TWO)
    for name in (*names, "lab//a.json", "%6cab/a.json"):
        await mailing.hear(name)
    mailing.route.clock.later(7200)
    await queue_left_files(mailing.inbox)
    await mailing.hear_own()
    assert {each.sender for each in kept(mailing)} <= {"lab", "slow"}
    assert [each.sender for each in kept(mailing)].count("slow") == 1  # by housekeeping, its own


async def test_without_an_inbox_a_message_is_dropped(mailing: Mailing) -> None:
    await take_files(None, make_event("lab/a.json"))
    await queue_left_files(None)
    assert kept(mailing) == []


# --- at least once, and only once --------------------------------------------------------------


async def test_an_event_that_comes_twice_makes_one_delivery(mailing: Mailing) -> None:
    await mailing.send("lab/a.json", TWO)
    await mailing.hear("lab/a.json")
    await mailing.finish()
    assert len(kept(mailing)) == 1
    assert len(mailing.files.answers) == 1


async def test_two_workers_at_one_file_make_one_delivery(mailing: Mailing) -> None:
    file = mailing.files.put("lab/a.json", TWO)
    await mailing.hear("lab/a.json")
    mailing.files.files["lab/a.json"] = (file, TWO)  # as the other one had seen it
    await mailing.hear("lab/a.json")
    await mailing.finish()
    assert len(kept(mailing)) == 1
    assert statuses(mailing, "lab/a.json.json") == ["201", "201"]


async def test_a_file_that_is_gone_changes_nothing(mailing: Mailing) -> None:
    await mailing.hear("lab/a.json")
    assert (kept(mailing), mailing.files.answers) == ([], {})


class Fragile(MemoryInboxFiles):
    """The worker is killed, or storage fails, at the chosen step."""

    breaks_at = ""
    error: BaseException = Unavailable("storage", "ServiceRequestError")

    def _break(self, step: str) -> None:
        if self.breaks_at == step:
            self.breaks_at = ""
            raise self.error

    async def read(self, file: InboxFile) -> bytes | None:
        self._break("read")
        return await super().read(file)

    async def delete(self, file: InboxFile) -> bool:
        self._break("delete")
        return await super().delete(file)

    async def write_answer(self, name: str, body: bytes) -> None:
        self._break("write_answer")
        await super().write_answer(name, body)


class Killed(BaseException):
    pass


@pytest.fixture
def fragile(mailing: Mailing) -> Fragile:
    mailing.files = Fragile(mailing.route.clock)
    return mailing.files


async def test_a_worker_that_is_killed_between_keep_and_delete_is_made_up_for(
    mailing: Mailing, fragile: Fragile
) -> None:
    fragile.breaks_at, fragile.error = "delete", Killed()
    with pytest.raises(Killed):
        await mailing.send("lab/a.json", TWO)
    assert set(fragile.files) == {"lab/a.json"}
    await mailing.finish()
    await mailing.hear("lab/a.json")  # the queue hands the event out again
    await mailing.finish()
    assert fragile.files == {}
    assert len(kept(mailing)) == 1
    assert statuses(mailing, "lab/a.json.json") == ["201", "201"]


@pytest.mark.parametrize("step", ["read", "delete"])
async def test_what_storage_keeps_from_being_taken_is_taken_later(
    mailing: Mailing, fragile: Fragile, step: str
) -> None:
    fragile.breaks_at = step
    await mailing.send(NAME, TWO)
    assert set(fragile.files) == {NAME}
    assert MARKER not in str(mailing.route.queue_sender.sent)
    assert await mailing.hear_own() == [2.0]
    assert fragile.files == {}
    assert len(kept(mailing)) == 1


async def test_the_answer_of_a_refused_file_is_written_before_it_is_deleted(
    mailing: Mailing, fragile: Fragile
) -> None:
    fragile.breaks_at, fragile.error = "write_answer", Killed()
    with pytest.raises(Killed):
        await mailing.send("lab/a.json", b"no JSON")
    await mailing.hear("lab/a.json")
    assert "JSON" in mailing.problem("lab/a.json.json")
    assert fragile.files == {}


async def test_a_file_that_changes_while_it_is_read_is_taken_as_it_is_then(
    mailing: Mailing,
) -> None:
    class Overwritten(MemoryInboxFiles):
        async def read(self, file: InboxFile) -> bytes | None:
            if self.puts == 1:
                self.put(file.name, TWO)
            return await super().read(file)

    mailing.files = Overwritten(mailing.route.clock)
    await mailing.send("lab/a.json", as_json(patient()))
    assert kept(mailing) == []
    assert set(mailing.files.files) == {"lab/a.json"}
    await mailing.hear("lab/a.json")  # of the new content
    assert [each.entries for each in kept(mailing)] == [2]


async def test_a_file_that_changes_after_it_was_read_is_not_deleted(mailing: Mailing) -> None:
    class Overwritten(MemoryInboxFiles):
        async def delete(self, file: InboxFile) -> bool:
            if self.puts == 1:
                self.put(file.name, as_json(patient()))
            return await super().delete(file)

    mailing.files = Overwritten(mailing.route.clock)
    await mailing.send("lab/a.json", TWO)
    assert set(mailing.files.files) == {"lab/a.json"}
    await mailing.hear("lab/a.json")
    assert "use a new name" in mailing.problem("lab/a.json.refused.json")


async def test_a_zip_that_broke_off_is_finished_with_the_same_keys(
    mailing: Mailing, fragile: Fragile
) -> None:
    parts = [("a", as_json(patient(id="a"))), ("b", b"no JSON"), ("c", as_json(patient(id="c")))]
    fragile.breaks_at, fragile.error = "write_answer", Killed()
    with pytest.raises(Killed):
        await mailing.send("lab/a.zip", as_zip(*parts))
    (first,) = kept(mailing)
    await mailing.hear("lab/a.zip")
    await mailing.finish()
    assert first.id in {each.id for each in kept(mailing)}
    assert len(kept(mailing)) == 2
    assert len(fragile.answers) == 3


# --- later -------------------------------------------------------------------------------------


async def test_what_is_over_the_quota_waits_and_nothing_is_lost(mailing: Mailing) -> None:
    await mailing.send("slow/a.json", TWO)
    await mailing.send("slow/b.json", TWO)
    await mailing.send("slow/c.json", TWO)
    assert set(mailing.files.files) == {"slow/b.json", "slow/c.json"}
    for _ in range(10):
        await mailing.hear_own()
    assert mailing.files.files == {}
    assert len(kept(mailing)) == 3


async def test_a_retry_waits_as_long_as_the_quota_says(mailing: Mailing) -> None:
    await mailing.send("slow/a.json", TWO)
    await mailing.send("slow/b.json", TWO)
    ((_, delay),) = mailing.route.queued(INBOX_QUEUE)
    assert delay == 60


async def test_a_file_waits_for_its_share_of_the_budget(mailing: Mailing) -> None:
    budget = ByteBudget(2_000_000)
    mailing.changes["intake"] = replace(mailing.route.intake, budget=budget)
    with budget.take_now(2_000_000):
        await mailing.send("lab/a.zip", as_zip(("a", TWO)))
    assert set(mailing.files.files) == {"lab/a.zip"}
    await mailing.hear_own()
    assert mailing.files.files == {}
    assert budget.taken == 0


async def test_a_file_with_the_whole_budget_can_be_taken(mailing: Mailing) -> None:
    """It holds one share and asks for no other."""
    budget = ByteBudget(100_000)
    mailing.changes["intake"] = replace(mailing.route.intake, budget=budget)
    people = batch(*(entry(patient(id=f"p{n}")) for n in range(1000)))
    await mailing.send("lab/a.zip", as_zip(("a", as_json(people))))
    assert [each.entries for each in kept(mailing)] == [1000]


async def test_a_queue_that_takes_nothing_leaves_the_event_to_the_host(mailing: Mailing) -> None:
    class Full:
        async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
            raise Unavailable("storage", "queue: ServiceRequestError")

    mailing.changes |= {"queue": Full()}
    mailing.changes["intake"] = replace(mailing.route.intake, queue=Full())
    with pytest.raises(Unavailable):
        await mailing.send("lab/a.json", TWO)
    mailing.changes.clear()
    await mailing.hear("lab/a.json")
    await mailing.finish()
    assert statuses(mailing, "lab/a.json.json") == ["201", "201"]


async def test_retries_end_after_an_hour_and_housekeeping_goes_on(mailing: Mailing) -> None:
    class Down(MemoryInboxFiles):
        async def read(self, file: InboxFile) -> bytes | None:
            raise Unavailable("storage", "ServiceRequestError")

    up, down = mailing.files, Down(mailing.route.clock)
    mailing.files = down
    await mailing.send("lab/a.json", TWO)
    for _ in range(20):
        await mailing.hear_own()
    assert mailing.route.queue_sender.sent == []
    mailing.route.clock.later(600)
    await queue_left_files(mailing.inbox)
    assert await mailing.hear_own() == [0]  # it has no retries of its own
    assert mailing.route.queue_sender.sent == []
    up.files = down.files
    mailing.files = up
    await queue_left_files(mailing.inbox)
    await mailing.hear_own()
    assert up.files == {}
    assert len(kept(mailing)) == 1


async def test_a_file_whose_event_was_lost_is_taken_by_housekeeping(mailing: Mailing) -> None:
    mailing.files.put(NAME, TWO)
    mailing.files.put("web/a.json", TWO)
    await queue_left_files(mailing.inbox)
    assert mailing.route.queue_sender.sent == []
    mailing.route.clock.later(timedelta(hours=1, seconds=1).total_seconds())
    await queue_left_files(mailing.inbox)
    assert MARKER not in str(mailing.route.queue_sender.sent)
    await mailing.hear_own()
    assert len(kept(mailing)) == 1
    assert set(mailing.files.files) == {"web/a.json"}


async def test_one_run_of_housekeeping_queues_so_many_files(mailing: Mailing) -> None:
    for number in range(inboxes.MAX_LEFT_FILES + 1):
        mailing.files.put(f"lab/{number}", TWO)
    mailing.route.clock.later(7200)
    await queue_left_files(mailing.inbox)
    assert len(mailing.route.queued(INBOX_QUEUE)) == inboxes.MAX_LEFT_FILES


async def test_a_sender_that_is_listed_no_more_keeps_its_files(mailing: Mailing) -> None:
    mailing.files.put("lab/a.json", TWO)
    mailing.route.clock.later(7200)
    await queue_left_files(mailing.inbox)
    del mailing.senders["lab"]
    await mailing.hear_own()
    assert set(mailing.files.files) == {"lab/a.json"}


# --- answers -----------------------------------------------------------------------------------


async def test_a_parked_delivery_is_answered_after_its_replay(mailing: Mailing) -> None:
    journal, queue = mailing.route.journal, mailing.route.queue_sender
    await mailing.send("lab/a.json", TWO)
    (delivery,) = kept(mailing)
    queue.sent.clear()
    await journal.update_delivery(delivery.id, status=Status.PARKED, reason="test")
    await mailing.finish()
    assert mailing.files.answers == {}
    await deliveries.replay(journal, queue, delivery.id, mailing.route.clock())
    await mailing.finish()
    assert statuses(mailing, "lab/a.json.json") == ["201", "201"]


async def test_a_cancelled_delivery_is_answered(mailing: Mailing) -> None:
    await mailing.send("lab/a.json", TWO)
    (delivery,) = kept(mailing)
    await deliveries.cancel(mailing.route.journal, delivery.id, mailing.route.clock())
    await mailing.finish()
    assert "cancelled" in mailing.problem("lab/a.json.json")


async def test_the_same_file_again_is_not_written_again_and_answered_again(
    mailing: Mailing,
) -> None:
    await mailing.send("lab/a.json", TWO)
    await mailing.finish()
    asked = len(mailing.route.fhir_double.received)
    mailing.files.answers.clear()
    await mailing.send("lab/a.json", TWO)
    await mailing.finish()
    assert statuses(mailing, "lab/a.json.json") == ["201", "201"]
    assert len(mailing.route.fhir_double.received) == asked


async def test_a_delivery_over_http_has_no_answer(mailing: Mailing) -> None:
    await mailing.route.process_all(await mailing.route.deliver(bundle(entry(patient()))))
    assert mailing.route.queued(ANSWER_QUEUE) == []


# --- names -------------------------------------------------------------------------------------


async def test_the_name_of_a_file_is_in_no_log_message_or_row(
    mailing: Mailing, fragile: Fragile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fragile.breaks_at = "read"
    body = as_zip((f"{MARKER}.json", TWO), (f"{MARKER}2.json", b"no JSON"))
    await mailing.send(f"lab/{MARKER}.zip", body)
    sent = list(mailing.route.queue_sender.sent)
    await mailing.hear_own()
    sent += mailing.route.queue_sender.sent
    await mailing.finish()
    await mailing.send(f"lab/{MARKER}.zip", as_zip((f"{MARKER}.json", as_json(patient()))))
    journal: MemoryJournal = mailing.route.journal
    assert len(fragile.answers) == 3
    assert {queue for queue, *_ in sent} == {INBOX_QUEUE, RELAY_QUEUE}
    for kept_here in (sent, list(journal.deliveries.values()), journal.keys, journal.index):
        assert MARKER not in str(kept_here)
    assert MARKER not in told_by(caplog.records)


async def test_a_file_that_is_shown_in_an_error_does_not_show_its_name() -> None:
    assert MARKER not in repr(MemoryInboxFiles(Clock()).put(NAME, b""))


async def test_a_delivery_that_is_kept_but_not_listed_is_finished(mailing: Mailing) -> None:
    """The bytes are stored, and the worker ends before the row is."""

    class Fragile(MemoryJournal):
        is_broken = False

        async def add_delivery(self, delivery: Delivery, payload: Payload) -> bool:
            added = await MemoryJournal.add_delivery(self, delivery, payload)
            if not self.is_broken:
                self.is_broken = True
                del self.deliveries[delivery.id]
                raise Unavailable("storage", "ServiceRequestError")
            return added

    mailing.route.journal = Fragile()
    await mailing.send("lab/a.json", TWO)
    await mailing.hear_own()
    await mailing.finish()
    assert statuses(mailing, "lab/a.json.json") == ["201", "201"]
