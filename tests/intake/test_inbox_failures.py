"""A file is taken at least once and written once, whatever fails; and its name stays where it is."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from integration.core.byte_budget import ByteBudget
from integration.core.errors import Unavailable
from integration.core.model import Delivery, WorkItem
from integration.intake import inbox as inboxes
from integration.intake.inbox import queue_left_files
from integration.journal.inbox_files import InboxFile, MemoryInboxFiles
from integration.journal.store import MemoryJournal, Payload
from integration.queues.names import INBOX_QUEUE, RELAY_QUEUE
from tests.builders import MARKER, batch, entry, observation, patient
from tests.conftest import Route, told_by
from tests.doubles import Clock
from tests.intake.mailing import (
    Fragile,
    Killed,
    Mailing,
    as_json,
    as_zip,
    make_mailing,
)

NAME = f"lab/{MARKER}.json"
TWO = as_json(batch(entry(patient()), entry(observation())))


@pytest.fixture
def mailing(route: Route) -> Mailing:
    return make_mailing(route)


@pytest.fixture
def fragile(mailing: Mailing) -> Fragile:
    files = Fragile(mailing.route.clock)
    mailing.files = files
    return files


# --- at least once, and only once --------------------------------------------------------------


async def test_an_event_that_comes_twice_makes_one_delivery(mailing: Mailing) -> None:
    await mailing.send("lab/a.json", TWO)
    await mailing.hear("lab/a.json")
    await mailing.finish()
    assert len(mailing.kept) == 1
    assert len(mailing.files.answers) == 1


async def test_two_workers_at_one_file_make_one_delivery(mailing: Mailing) -> None:
    file = mailing.files.put("lab/a.json", TWO)
    await mailing.hear("lab/a.json")
    mailing.files.files["lab/a.json"] = (file, TWO)  # as the other one had seen it
    await mailing.hear("lab/a.json")
    await mailing.finish()
    assert len(mailing.kept) == 1
    assert mailing.statuses("lab/a.json.json") == ["201", "201"]


async def test_a_file_that_is_gone_changes_nothing(mailing: Mailing) -> None:
    await mailing.hear("lab/a.json")
    assert (mailing.kept, mailing.files.answers) == ([], {})


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
    assert len(mailing.kept) == 1
    assert mailing.statuses("lab/a.json.json") == ["201", "201"]


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
    assert len(mailing.kept) == 1


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
    assert mailing.kept == []
    assert set(mailing.files.files) == {"lab/a.json"}
    await mailing.hear("lab/a.json")  # of the new content
    assert [each.entries for each in mailing.kept] == [2]


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
    (first,) = mailing.kept
    await mailing.hear("lab/a.zip")
    await mailing.finish()
    assert first.id in {each.id for each in mailing.kept}
    assert len(mailing.kept) == 2
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
    assert len(mailing.kept) == 3


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
    assert [each.entries for each in mailing.kept] == [1000]


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
    assert mailing.statuses("lab/a.json.json") == ["201", "201"]


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
    assert len(mailing.kept) == 1


async def test_a_file_whose_event_was_lost_is_taken_by_housekeeping(mailing: Mailing) -> None:
    mailing.files.put(NAME, TWO)
    mailing.files.put("web/a.json", TWO)
    await queue_left_files(mailing.inbox)
    assert mailing.route.queue_sender.sent == []
    mailing.route.clock.later(timedelta(hours=1, seconds=1).total_seconds())
    await queue_left_files(mailing.inbox)
    assert MARKER not in str(mailing.route.queue_sender.sent)
    await mailing.hear_own()
    assert len(mailing.kept) == 1
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

    class Brittle(MemoryJournal):
        is_broken = False

        async def add_delivery(self, delivery: Delivery, payload: Payload) -> bool:
            added = await MemoryJournal.add_delivery(self, delivery, payload)
            if not self.is_broken:
                self.is_broken = True
                del self.deliveries[delivery.id]
                raise Unavailable("storage", "ServiceRequestError")
            return added

    mailing.route.journal = Brittle()
    await mailing.send("lab/a.json", TWO)
    await mailing.hear_own()
    await mailing.finish()
    assert mailing.statuses("lab/a.json.json") == ["201", "201"]
