"""Which of two writes of a resource is the later one. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WriteRank:
    """The place of a write among all writes of its resource.

    `delivery`: its id, which sorts by the time of acceptance. `source_version`: where the source
    places the write, if it does; the first letter says by what. See `fhir.source_version`.
    """

    delivery: str
    source_version: str | None = None


def is_later(last: WriteRank, write: WriteRank) -> bool:
    """Whether `last`, which was written already, is later than `write`.

    The source versions decide where both have one of the same kind, else the order in which the
    deliveries were accepted.
    """
    stated, other = last.source_version, write.source_version
    if stated and other and stated[0] == other[0] and stated != other:
        return stated > other
    return last.delivery > write.delivery
