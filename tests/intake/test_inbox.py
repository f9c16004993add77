"""A file in a sender's folder is a delivery of that sender, and its answer is a file again."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import pytest

from integration.core.model import Rights, Status, WorkItem
from integration.intake.inbox import UnreadableMessage, queue_left_files, take_files
from integration.journal.inbox_files import InboxFile, MemoryInboxFiles
from integration.operations import deliveries
from integration.queues.names import ANSWER_QUEUE
from integration.senders.model import SenderPolicy
from tests.builders import MARKER, batch, bundle, entry, observation, patient
from tests.conftest import Route, told_by
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


# --- what becomes of a file --------------------------------------------------------------------


async def test_a_file_becomes_a_delivery_of_its_folder_s_sender(mailing: Mailing) -> None:
    await mailing.send(NAME, TWO)
    (delivery,) = mailing.kept
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
    assert mailing.statuses(f"{NAME}.json") == ["201", "201"]
    assert mailing.kept[0].answer_due is False


@pytest.mark.parametrize("policy", [SenderPolicy(), SenderPolicy(write_order="off")])
async def test_the_policy_of_the_sender_holds(route: Route, policy: SenderPolicy) -> None:
    mailing = make_mailing(route, policy=policy)
    await mailing.send(NAME, TWO)
    assert mailing.kept[0].write_order == (policy.write_order or "arrival")


async def test_what_the_sender_may_not_is_refused_in_the_answer(route: Route) -> None:
    mailing = make_mailing(route, rights=Rights(types=("Patient",)))
    await mailing.send(NAME, TWO)
    await mailing.finish()
    assert mailing.statuses(f"{NAME}.json") == ["201", "403"]


async def test_gzip_and_ndjson_are_taken_as_what_they_hold(mailing: Mailing) -> None:
    lines = as_json(patient()) + b"\n" + as_json(patient())
    await mailing.send("lab/a.ndjson.gz", as_gzip(lines))
    (delivery,) = mailing.kept
    assert (delivery.kind, delivery.entries) == ("ndjson", 2)
    assert (await mailing.route.journal.get_payload(delivery.id)).body == lines


async def test_each_member_of_a_zip_is_a_delivery_with_an_answer(mailing: Mailing) -> None:
    one, other = as_json(patient(id="a")), b"no JSON"
    await mailing.send("lab/day.zip", as_zip(("a.json", one), ("b.json", other), ("c/d", TWO)))
    await mailing.finish()
    assert {each.entries for each in mailing.kept} == {1, 2}
    assert set(mailing.files.answers) == {
        "lab/day.zip/a.json.json",
        "lab/day.zip/b.json.json",
        "lab/day.zip/c/d.json",
    }
    assert mailing.statuses("lab/day.zip/a.json.json") == ["201"]
    assert "JSON" in mailing.problem("lab/day.zip/b.json.json")
    assert mailing.files.files == {}


async def test_a_notification_without_resources_is_answered_at_once(mailing: Mailing) -> None:
    await mailing.send("lab/n.json", as_json(make_notification(kind="handshake")))
    assert "acknowledged" in mailing.problem("lab/n.json.json")
    assert mailing.kept == []
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
    assert mailing.kept == []
    assert mailing.route.queue_sender.sent == []


async def test_of_a_zip_with_two_members_of_one_name_nothing_is_taken(mailing: Mailing) -> None:
    with warnings.catch_warnings(action="ignore"):
        body = as_zip(("a.json", TWO), ("a.json", as_json(patient())))
    await mailing.send("lab/a.zip", body)
    assert "has the name of another" in mailing.problem("lab/a.zip.json")
    assert mailing.kept == []


async def test_a_file_that_is_too_large_is_not_read(mailing: Mailing) -> None:
    class Unread(MemoryInboxFiles):
        async def read(self, file: InboxFile) -> bytes | None:
            raise AssertionError("it is read")

    mailing.files = Unread(mailing.route.clock)
    await mailing.send("lab/a.json", b"1" * 1_000_001)
    assert "larger than" in mailing.problem("lab/a.json.json")


async def test_where_refusals_would_stop_a_feed_the_file_is_held(mailing: Mailing) -> None:
    await mailing.send("held/a.json", b"no JSON")
    (delivery,) = mailing.kept
    assert (delivery.status, delivery.sender) == (Status.PARKED, "held")
    assert (mailing.files.files, mailing.files.answers) == ({}, {})


async def test_a_name_is_used_once_and_its_answer_stays(mailing: Mailing) -> None:
    await mailing.send("lab/a.json", TWO)
    await mailing.finish()
    await mailing.send("lab/a.json", as_json(patient()))
    await mailing.finish()
    assert mailing.statuses("lab/a.json.json") == ["201", "201"]
    assert "use a new name" in mailing.problem("lab/a.json.refused.json")
    assert len(mailing.kept) == 1


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
    assert len(mailing.kept) == 1


async def test_a_renamed_file_is_taken(mailing: Mailing) -> None:
    mailing.files.put("lab/a.json", TWO)
    address = "https://account.dfs.core.windows.net/inbox/lab/a.json"
    data = {"api": "RenameFile", "destinationUrl": address, "sourceUrl": f"{address}.part"}
    renamed = {"type": "Microsoft.Storage.BlobRenamed", "data": data}
    await mailing.hear("lab/a.json.part", **renamed)
    assert len(mailing.kept) == 1


async def test_an_event_in_the_schema_of_event_grid_is_understood(mailing: Mailing) -> None:
    mailing.files.put("lab/a.json", TWO)
    event = json.loads(make_event("lab/a.json"))
    event["eventType"] = event.pop("type")
    await take_files(mailing.inbox, json.dumps([event]).encode())
    assert len(mailing.kept) == 1


@pytest.mark.parametrize(
    "event",
    [{"container": "deliveries"}, {"type": "Microsoft.Storage.BlobDeleted"}, {"subject": "x"}],
)
async def test_other_events_change_nothing(mailing: Mailing, event: dict[str, Any]) -> None:
    mailing.files.put("lab/a.json", TWO)
    await mailing.hear("lab/a.json", **event)
    assert mailing.kept == []


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
    assert len(mailing.kept) == 1


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
    assert {each.sender for each in mailing.kept} <= {"lab", "slow"}
    assert [each.sender for each in mailing.kept].count("slow") == 1  # by housekeeping, its own


async def test_without_an_inbox_a_message_is_dropped(mailing: Mailing) -> None:
    await take_files(None, make_event("lab/a.json"))
    await queue_left_files(None)
    assert mailing.kept == []


# --- answers -----------------------------------------------------------------------------------


async def test_a_parked_delivery_is_answered_after_its_replay(mailing: Mailing) -> None:
    journal, queue = mailing.route.journal, mailing.route.queue_sender
    await mailing.send("lab/a.json", TWO)
    (delivery,) = mailing.kept
    queue.sent.clear()
    await journal.update_delivery(delivery.id, status=Status.PARKED, reason="test")
    await mailing.finish()
    assert mailing.files.answers == {}
    await deliveries.replay(journal, queue, delivery.id, mailing.route.clock())
    await mailing.finish()
    assert mailing.statuses("lab/a.json.json") == ["201", "201"]


async def test_a_cancelled_delivery_is_answered(mailing: Mailing) -> None:
    await mailing.send("lab/a.json", TWO)
    (delivery,) = mailing.kept
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
    assert mailing.statuses("lab/a.json.json") == ["201", "201"]
    assert len(mailing.route.fhir_double.received) == asked


async def test_a_delivery_over_http_has_no_answer(mailing: Mailing) -> None:
    await mailing.route.process_all(await mailing.route.deliver(bundle(entry(patient()))))
    assert mailing.route.queued(ANSWER_QUEUE) == []
