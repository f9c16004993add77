"""No kind of fault goes missing unseen."""

from __future__ import annotations

import httpx

from faults import injected
from faults.chapters import SCENARIOS, list_missing
from faults.injected import COPIED, DELIVERED_TWICE, KILLED, QUEUE_FAILED, STORAGE_CLOCK
from faults.proxy import Proxy
from faults.verdict import Tally

KINDS = {value for name, value in vars(injected).items() if name.isupper()}

POLL = {"method": "GET", "path": "/devstoreaccount1/relay/messages"}
SEND = {"method": "POST", "path": "/devstoreaccount1/relay/messages"}
MIRROR = {"method": "POST", "path": "/devstoreaccount1/mirror/messages"}
MESSAGE = httpx.Response(200, content=b"<List><QueueMessage>1</QueueMessage></List>")


def test_each_kind_is_demanded_of_some_scenario() -> None:
    assert {kind for scenario in SCENARIOS.values() for kind in scenario.injects} == KINDS


def test_a_kind_that_was_not_injected_is_named() -> None:
    tally = Tally()
    tally.injected.update({COPIED: 3, STORAGE_CLOCK: 1, KILLED: 2})
    assert list_missing(["copies", "kills"], tally) == [DELIVERED_TWICE]
    tally.injected[DELIVERED_TWICE] = 1
    assert list_missing(["copies", "kills"], tally) == []


def test_a_work_item_comes_twice_as_often_as_it_is_told_to() -> None:
    proxy = Proxy(upstream=(), doubles=1)
    proxy.keep_delivered(POLL, httpx.Response(200, content=b"<List/>"))
    assert proxy.take_delivered(POLL) is None
    proxy.keep_delivered(POLL, MESSAGE)
    assert proxy.take_delivered(SEND) is None
    assert proxy.take_delivered(POLL) is MESSAGE
    proxy.keep_delivered(POLL, MESSAGE)
    assert proxy.take_delivered(POLL) is None
    assert proxy.injected == {DELIVERED_TWICE: 1}


def test_the_queue_fails_for_the_relay_alone_and_counts_what_failed() -> None:
    proxy = Proxy(upstream=())
    proxy.queue_faults.extend([None, "500"])
    assert [proxy.take_fault(scope) for scope in (MIRROR, SEND, POLL, SEND, SEND)] == [
        *(None, None, None, "500", None)
    ]
    assert proxy.injected == {QUEUE_FAILED: 1}
