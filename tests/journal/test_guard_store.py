"""What the guard store promises, of its double and of the table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.journal import azure_guard_store
from integration.journal.guard_store import (
    MEMORY,
    Claim,
    ClaimTable,
    GuardStore,
    MemoryGuardStore,
    WriteLock,
)
from local.services import Running

OLD, NEW = "019a0000-0000-7000-8000-000000000000", "019b0000-0000-7000-8000-000000000000"


def key(name: object) -> str:
    return sha256(str(name).encode()).hexdigest()


KEYS = [key(n) for n in range(60)]
TURN = WriteLock(
    holder="me",
    expires_at=5.5,
    written_by=OLD,
    source_version="v:1",
    attempted_by=OLD,
)


@pytest.fixture(params=["memory", "table"])
async def guard_store(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[GuardStore]:
    if request.param == "memory":
        yield MemoryGuardStore()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        locks = await tables.create_table_if_not_exists(namespace)
        claims = await tables.create_table_if_not_exists(f"{namespace}claims")
        yield azure_guard_store.AzureGuardStore(locks, claims)


def plain(turns: dict[str, WriteLock]) -> dict[str, WriteLock]:
    return {name: replace(turn, etag=None) for name, turn in turns.items()}


async def test_what_was_never_written_is_not_there(guard_store: GuardStore) -> None:
    assert await guard_store.read(KEYS) == {}
    assert await guard_store.read([]) == {}


@pytest.mark.parametrize("number", [1, 2, 60])
async def test_what_is_written_is_read_again(guard_store: GuardStore, number: int) -> None:
    wanted = dict.fromkeys(KEYS[:number], TURN)
    written = await guard_store.write(wanted)
    assert plain(written) == wanted
    assert await guard_store.read(KEYS) == written


async def test_a_turn_without_a_stamp_has_none_again(guard_store: GuardStore) -> None:
    await guard_store.write({KEYS[0]: replace(TURN, source_version=None)})
    assert (await guard_store.read(KEYS[:1]))[KEYS[0]].source_version is None


@pytest.mark.parametrize("number", [1, 60])
async def test_only_the_first_of_two_who_found_nothing_writes(
    guard_store: GuardStore, number: int
) -> None:
    await guard_store.write(dict.fromkeys(KEYS[:number], TURN))
    assert (
        await guard_store.write(dict.fromkeys(KEYS[:number], replace(TURN, holder="other"))) == {}
    )
    assert {turn.holder for turn in (await guard_store.read(KEYS)).values()} == {"me"}


@pytest.mark.parametrize("number", [1, 60])
async def test_only_the_first_of_two_who_read_the_same_writes(
    guard_store: GuardStore, number: int
) -> None:
    read = await guard_store.write(dict.fromkeys(KEYS[:number], TURN))
    first = {name: replace(turn, holder="first") for name, turn in read.items()}
    second = {name: replace(turn, holder="second") for name, turn in read.items()}
    assert len(await guard_store.write(first)) == number
    assert await guard_store.write(second) == {}
    assert {turn.holder for turn in (await guard_store.read(KEYS)).values()} == {"first"}


async def test_a_race_lost_for_one_row_leaves_the_others_of_its_part_as_they_are(
    guard_store: GuardStore,
) -> None:
    """What is told as written is written, and what is not told is not."""
    await guard_store.write({KEYS[0]: TURN})
    written = await guard_store.write(dict.fromkeys(KEYS, replace(TURN, holder="late")))
    assert KEYS[0] not in written
    held = {name for name, turn in (await guard_store.read(KEYS)).items() if turn.holder == "late"}
    assert held == set(written)


async def test_what_no_kept_delivery_can_ask_for_is_forgotten(guard_store: GuardStore) -> None:
    free = WriteLock(written_by=OLD)
    rows: dict[str, WriteLock] = {
        KEYS[0]: free,
        KEYS[1]: WriteLock(written_by=NEW),
        KEYS[2]: WriteLock(written_by=OLD, attempted_by=NEW),
        KEYS[3]: WriteLock(written_by=OLD, holder="x", expires_at=200.0),
        KEYS[4]: WriteLock(),
    }
    await guard_store.write(rows)
    assert await guard_store.delete_old(NEW, 100.0, 10) == 2
    assert set(await guard_store.read(KEYS)) == set(KEYS[1:4])


async def test_a_lock_that_was_used_again_is_kept_until_that_use_is_old(
    guard_store: GuardStore,
) -> None:
    used = await guard_store.write({KEYS[0]: WriteLock(written_by=OLD)})
    await guard_store.write({KEYS[0]: replace(used[KEYS[0]], written_by=NEW)})
    assert await guard_store.delete_old(NEW, 100.0, 10) == 0
    assert await guard_store.delete_old("ffff", 100.0, 10) == 1
    assert await guard_store.read(KEYS[:1]) == {}
    assert await guard_store.delete_old("ffff", 100.0, 10) == 0


async def test_no_more_is_forgotten_than_was_asked(guard_store: GuardStore) -> None:
    await guard_store.write(dict.fromkeys(KEYS[:5], WriteLock(written_by=OLD)))
    assert await guard_store.delete_old(NEW, 100.0, 3) == 3
    assert len(await guard_store.read(KEYS)) == 2


async def test_the_rows_of_a_large_unit_are_written_at_once(guard_store: GuardStore) -> None:
    """In sixteen parts, each within what one entity group transaction takes."""
    keys = [key(n) for n in range(500)]
    assert len({name[:1] for name in keys}) == 16
    written = await guard_store.write(dict.fromkeys(keys, TURN))
    assert len(written) == 500


# --- claims --------------------------------------------------------------------------------------

UNIT, OTHER_UNIT = f"{OLD} 0.0", f"{NEW} 0.0"
CLAIM = Claim(
    holder="me",
    expires_at=5.5,
    names=frozenset(sha256(name.encode()).digest()[:8] for name in KEYS),
)


async def test_a_claim_is_read_as_it_was_written(guard_store: GuardStore) -> None:
    written = await guard_store.write_claim(UNIT, CLAIM)
    assert written is not None
    assert replace(written, etag=None) == CLAIM
    assert (await guard_store.read_claims(0)).claims == {UNIT: written}


async def test_a_unit_has_one_claim(guard_store: GuardStore) -> None:
    first = await guard_store.write_claim(UNIT, CLAIM)
    assert first is not None
    assert await guard_store.write_claim(UNIT, replace(CLAIM, holder="other")) is None
    assert await guard_store.write_claim(UNIT, replace(first, holder="next")) is not None
    assert await guard_store.write_claim(UNIT, replace(first, holder="too late")) is None
    assert [claim.holder for claim in (await guard_store.read_claims(0)).claims.values()] == [
        "next"
    ]


async def test_a_claim_that_another_has_taken_over_is_not_deleted(guard_store: GuardStore) -> None:
    first = await guard_store.write_claim(UNIT, CLAIM)
    assert first is not None
    second = await guard_store.write_claim(UNIT, replace(first, holder="other"))
    assert second is not None
    await guard_store.delete_claim(UNIT, first)
    assert (await guard_store.read_claims(0)).claims == {UNIT: second}
    await guard_store.delete_claim(UNIT, second)
    await guard_store.delete_claim(UNIT, second)
    assert (await guard_store.read_claims(0)).claims == {}


async def test_names_that_were_written_just_now_outlive_their_claim(
    guard_store: GuardStore,
) -> None:
    names, others = frozenset({b"8 bytes.", b"8 others"}), frozenset({b"another."})
    claim = await guard_store.write_claim(UNIT, CLAIM)
    assert claim is not None
    await guard_store.delete_claim(UNIT, claim, names, 1000.5)
    await guard_store.record_written(OTHER_UNIT, others, 1002.0)
    assert await guard_store.read_claims(0) == ClaimTable(claims={}, recent=names | others)
    assert (await guard_store.read_claims(1001.0)).recent == others
    assert (await guard_store.read_claims(1003.0)).recent == frozenset()


async def test_names_are_recorded_although_another_has_taken_over_the_claim(
    guard_store: GuardStore,
) -> None:
    first = await guard_store.write_claim(UNIT, CLAIM)
    assert first is not None
    second = await guard_store.write_claim(UNIT, replace(first, holder="other"))
    await guard_store.delete_claim(UNIT, first, frozenset({b"8 bytes."}), 1000.0)
    table = await guard_store.read_claims(1000.0)
    assert table == ClaimTable(claims={UNIT: second}, recent=frozenset({b"8 bytes."}))


async def test_names_of_long_ago_are_deleted_and_no_claim_with_them(
    guard_store: GuardStore,
) -> None:
    claim = await guard_store.write_claim(UNIT, replace(CLAIM, expires_at=10_000.0))
    for number in range(120):
        await guard_store.record_written(f"{number}", frozenset({b"8 bytes."}), number)
    await guard_store.record_written(UNIT, frozenset({b"another."}), 9000.0)
    await guard_store.delete_old(OLD, 9000.0, 10)
    assert await guard_store.read_claims(0) == ClaimTable(
        claims={UNIT: claim}, recent=frozenset({b"another."})
    )


async def test_the_newest_delete_is_that_of_the_latest_delivery(guard_store: GuardStore) -> None:
    assert (await guard_store.read_claims(0)).newest_delete == ""
    for delivery in (OLD, NEW, OLD):
        await guard_store.record_delete(delivery)
    assert await guard_store.read_claims(0) == ClaimTable(claims={}, newest_delete=NEW)


async def test_claims_that_expired_long_ago_are_deleted(guard_store: GuardStore) -> None:
    """The reads of a FHIR server that lags do not show at once what was written by them."""
    await guard_store.write_claim(UNIT, CLAIM)
    await guard_store.write_claim(OTHER_UNIT, replace(CLAIM, expires_at=100.0))
    await guard_store.record_delete(NEW)
    assert await guard_store.delete_old(OLD, MEMORY, 10) == 0
    assert await guard_store.delete_old(OLD, MEMORY + 50.0, 10) == 1
    table = await guard_store.read_claims(0)
    assert list(table.claims) == [OTHER_UNIT]
    assert table.newest_delete == NEW
