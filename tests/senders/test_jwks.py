"""An issuer's keys: asked for seldom, kept while it does not answer, and read strictly."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from fuzz.proof_seeds import build_jwks
from integration.core.errors import Unavailable
from integration.senders.jwks import MAX_BYTES, KeySet
from integration.senders.proofs.jwk_set import NoKeySet, parse_key_set

URL = "https://issuer.example/keys"


def write_set(*ids: str) -> bytes:
    """The answer of an issuer with these keys, all alike."""
    key = build_jwks()["ec-1"]
    return msgspec.json.encode({"keys": [{**key, "kid": kid} for kid in ids]})


class Issuer:
    """Answers what it is told to, counts, and has a clock."""

    def __init__(self, body: bytes) -> None:
        self.body: bytes | Exception = body
        self.asked = 0
        self.now = 1000.0
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, url: str) -> bytes:
        assert url == URL
        self.asked += 1
        await self.gate.wait()
        if isinstance(self.body, Exception):
            raise self.body
        return self.body

    def build_keys(self) -> KeySet:
        """The cache under test."""
        return KeySet(URL, self.fetch, clock=lambda: self.now)


async def test_the_issuer_is_asked_once_for_many_requests() -> None:
    issuer = Issuer(write_set("a", "b"))
    keys = issuer.build_keys()
    issuer.gate.clear()
    waiting = [asyncio.ensure_future(keys.get("a")) for _ in range(20)]
    await asyncio.sleep(0)
    issuer.gate.set()
    assert all(set(found) == {"a", "b"} for found in await asyncio.gather(*waiting))
    await keys.get("b")
    assert issuer.asked == 1


async def test_keys_are_fetched_again_after_some_minutes() -> None:
    issuer = Issuer(write_set("a"))
    keys = issuer.build_keys()
    await keys.get("a")
    issuer.now += 299
    await keys.get("a")
    assert issuer.asked == 1
    issuer.body = write_set("b")
    issuer.now += 2
    assert set(await keys.get("a")) == {"b"}
    assert issuer.asked == 2


async def test_an_unknown_key_is_looked_for_at_most_once_a_minute() -> None:
    issuer = Issuer(write_set("a"))
    keys = issuer.build_keys()
    for number in range(100):
        assert "made-up" not in await keys.get(f"made-up-{number}")
    assert issuer.asked == 1
    issuer.body = write_set("a", "new")
    issuer.now += 61
    assert "new" in await keys.get("new")
    assert issuer.asked == 2


async def test_keys_serve_on_for_a_day_while_the_issuer_does_not_answer() -> None:
    issuer = Issuer(write_set("a"))
    keys = issuer.build_keys()
    await keys.get("a")
    issuer.body = Unavailable("the issuer", "503")
    issuer.now += 86_399
    assert set(await keys.get("a")) == {"a"}
    issuer.now += 2
    with pytest.raises(Unavailable, match="503"):
        await keys.get("a")


async def test_an_issuer_that_fails_is_not_asked_by_each_request() -> None:
    issuer = Issuer(b"")
    issuer.body = Unavailable("the issuer", "no connection")
    keys = issuer.build_keys()
    for _ in range(50):
        with pytest.raises(Unavailable, match="no connection") as caught:
            await keys.get("a")
    assert (issuer.asked, caught.value.retry_after) == (1, 10)
    issuer.body = write_set("a")
    issuer.now += 10
    assert set(await keys.get("a")) == {"a"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b"{}",
        b'{"keys":1}',
        b"[" * 5000,
        b'{"keys":"\xff"}',
        b" " * MAX_BYTES,
    ],
)
async def test_what_is_no_set_of_keys_leaves_the_keys_as_they_are(body: bytes) -> None:
    issuer = Issuer(write_set("a"))
    keys = issuer.build_keys()
    await keys.get("a")
    issuer.body = body + b" "
    issuer.now += 301
    assert set(await keys.get("a")) == {"a"}
    assert issuer.asked == 2
    with pytest.raises(Unavailable):
        await Issuer(body).build_keys().get("a")


async def test_an_issuer_may_take_back_all_of_its_keys() -> None:
    issuer = Issuer(write_set("a"))
    keys = issuer.build_keys()
    await keys.get("a")
    issuer.body = write_set()
    issuer.now += 301
    assert await keys.get("a") == {}


async def test_an_answer_beyond_the_bound_is_not_read() -> None:
    issuer = Issuer(write_set("a") + b" " * MAX_BYTES)
    with pytest.raises(Unavailable, match="bytes"):
        await issuer.build_keys().get("a")


async def test_who_gives_up_waiting_leaves_the_asking_to_the_next() -> None:
    issuer = Issuer(write_set("a"))
    keys = issuer.build_keys()
    issuer.gate.clear()
    first, second = (asyncio.ensure_future(keys.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    issuer.gate.set()
    assert set(await second) == {"a"}
    assert issuer.asked == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "OKP"},
        {"d": "AAAA"},
        {"kid": None},
        {"kid": 1},
        {"kid": ""},
        {"kid": "k" * 257},
        {"x": 1},
        {"alg": 1},
    ],
)
def test_only_public_keys_for_signatures_are_taken(changes: dict[str, Any]) -> None:
    key = {**build_jwks()["ec-1"], "kid": "a"}
    assert set(parse_key_set(msgspec.json.encode({"keys": [key]}))) == {"a"}
    changed = msgspec.json.encode({"keys": [{**key, **changes}, 1, None, [], "a"]})
    assert parse_key_set(changed) == {}


def test_of_several_keys_with_one_id_the_first_is_taken() -> None:
    keys = build_jwks()
    both = [{**keys["rsa-1"], "kid": "a"}, {**keys["ec-1"], "kid": "a"}]
    assert parse_key_set(msgspec.json.encode({"keys": both}))["a"]["kty"] == "RSA"


def test_a_set_of_more_than_a_hundred_keys_is_refused() -> None:
    with pytest.raises(NoKeySet):
        parse_key_set(msgspec.json.encode({"keys": [{}] * 101}))
