"""What is sent is the same for the same seed, and says of each entry what is wanted."""

from __future__ import annotations

import json

import pytest

from faults.deliveries import MARKER_SYSTEM, TRACKED_SYSTEM, Delivery, DeliveryFactory, Stream
from faults.kinds import KINDS, take_streams

EVERY = [(kind, sent) for kind in KINDS for sent in kind(DeliveryFactory("test"))]


def split_entries(sent: Delivery) -> list[str]:
    if sent.headers.get("content-type") == "application/fhir+ndjson":
        return sent.body.decode().splitlines()
    if sent.path:
        return [sent.body.decode()]
    return [json.dumps(item) for item in json.loads(sent.body)["entry"]]


def test_the_same_seed_sends_the_same_bytes_and_another_others() -> None:
    def bodies(seed: str) -> list[bytes]:
        return [
            sent.body
            for stream in take_streams(DeliveryFactory(seed), len(KINDS) * 2)
            for sent in stream
        ]

    assert bodies("a") == bodies("a")
    assert bodies("a") != bodies("b")


def test_every_kind_is_sent_in_each_round() -> None:
    def names(stream: Stream) -> tuple[str, ...]:
        return tuple(sent.name for sent in stream)

    expected = sorted(names(kind(DeliveryFactory("x"))) for kind in KINDS)
    assert (
        sorted(names(stream) for stream in take_streams(DeliveryFactory("x"), len(KINDS)))
        == expected
    )


@pytest.mark.parametrize("sent", [sent for _, sent in EVERY], ids=lambda sent: sent.name)
def test_each_entry_has_its_intent_and_each_resource_its_identifiers(sent: Delivery) -> None:
    texts = split_entries(sent)
    assert len(texts) == len(sent.intents)
    for text, intent in zip(texts, sent.intents, strict=True):
        if intent.action == "deletes":
            assert intent.tracked.identity in f"{text} {sent.path.strip('/')}"
        else:
            assert all(
                value in text
                for value in (TRACKED_SYSTEM, intent.tracked.name, MARKER_SYSTEM, intent.marker)
            )


def test_no_two_entries_share_a_marker() -> None:
    markers = [
        intent.marker
        for stream in take_streams(DeliveryFactory("x"), 50)
        for s in stream
        for intent in s.intents
    ]
    assert len(set(markers)) == len(markers)
