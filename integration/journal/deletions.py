"""Which deliveries have deleted which resources.

A deleted resource has no content left that could say who deleted it. So each delete is recorded
here before it is sent, and whoever finds a resource absent asks: a write of an earlier delivery
must not bring it back. The records are rows of the guard store, under digests.

Nearly always no later delivery has deleted anything of a type, and one row for each type tells it:
the newest delivery with a delete. So a unit of many first writes costs one read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from integration.core.errors import Unavailable
from integration.core.write_order import WriteRank, is_later
from integration.journal.guard_store import GuardStore, WriteLock

# How often a record is tried again when others write the same rows at the same time.
_MAX_ATTEMPTS = 10


async def record_deletions(store: GuardStore, deletions: Mapping[str, WriteRank]) -> None:
    """Record deletes by Type/id, before they are sent. A later one that is recorded stays."""
    if not deletions:
        return
    by_key = {_hash_name(name): rank for name, rank in deletions.items()}
    by_type: dict[str, WriteRank] = {}
    for name, rank in deletions.items():
        key = _hash_type(name)
        newest = by_type.get(key)
        if newest is None or rank.delivery > newest.delivery:
            by_type[key] = WriteRank(rank.delivery)
    # The rows of the types first: who finds nothing there does not look for the others.
    await _raise_rows(store, by_type)
    await _raise_rows(store, by_key)


async def find_deletions(
    store: GuardStore, writes: Mapping[str, WriteRank], *, every: bool = False
) -> dict[str, WriteRank]:
    """Return the recorded deletes of these Type/id that may be later than the writes.

    `every`: also those that are certainly earlier.
    """
    if not writes:
        return {}
    names = set(writes)
    if not every:
        types = await store.read(sorted({_hash_type(name) for name in writes}))
        names = {
            name
            for name, rank in writes.items()
            if (newest := types.get(_hash_type(name))) is not None
            # The source's own order may differ from that of the deliveries.
            and (rank.source_version or newest.written_by > rank.delivery)
        }
    keys = {_hash_name(name): name for name in names}
    rows = await store.read(sorted(keys)) if keys else {}
    return {keys[key]: _read_rank(row) for key, row in rows.items()}


async def _raise_rows(store: GuardStore, wanted: Mapping[str, WriteRank]) -> None:
    """Set each row to the later of what it says and what is wanted."""
    for _ in range(_MAX_ATTEMPTS):
        existing = await store.read(sorted(wanted))
        changed = {
            key: replace(
                existing.get(key, WriteLock()),
                written_by=rank.delivery,
                source_version=rank.source_version,
            )
            for key, rank in wanted.items()
            if key not in existing or is_later(rank, _read_rank(existing[key]))
        }
        written = await store.write(changed) if changed else {}
        if len(written) == len(changed):
            return
    raise Unavailable("write guard", "other deletes were recorded at the same time")


def _read_rank(row: WriteLock) -> WriteRank:
    return WriteRank(row.written_by, row.source_version)


def _hash_name(name: str) -> str:
    return hashlib.sha256(f"deleted {name}".encode()).hexdigest()


def _hash_type(name: str) -> str:
    return hashlib.sha256(f"any deleted {name.partition('/')[0]}".encode()).hexdigest()
