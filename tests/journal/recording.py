"""A transport that records what the journal asks of tables, and fails what Azure would be slow at.

Azurite answers every query at once. In Azure a query reads all rows in the range of its keys, and
conditions on other columns only drop some of them afterwards; keys joined by `or` are no range:
https://learn.microsoft.com/azure/storage/tables/table-storage-design-for-query
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from azure.core.pipeline.transport import AioHttpTransport

_KEY = r"(?:PartitionKey|RowKey)"
_CONDITION = re.compile(rf"({_KEY}) (eq|ge|gt|le|lt) '((?:[^']|'')*)'")
_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda value, bound: value == bound,
    "ge": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
}


class PartitionScan(AssertionError):
    """A query that reads a table, or a partition that grows, from one end to the other."""


@dataclass(frozen=True)
class Ranges:
    """The conditions on keys of one query."""

    conditions: tuple[tuple[str, str, str], ...]
    has_alternatives: bool  # keys joined by `or`

    def contains(self, partition: str, row: str) -> bool:
        """Whether Azure reads a row with these keys to answer the query."""
        values = {"PartitionKey": partition, "RowKey": row}
        return self.has_alternatives or all(
            _COMPARE[operator](values[key], bound) for key, operator, bound in self.conditions
        )

    def _has(self, key: str, *operators: str) -> bool:
        return any(
            name == key and operator in operators and bound
            for name, operator, bound in self.conditions
        )

    @property
    def is_bounded(self) -> bool:
        """Whether it is a point, or a range of rows of one partition with an end."""
        point = self._has("RowKey", "eq")
        rows = self._has("RowKey", "ge", "gt") or self._has("RowKey", "le", "lt")
        return not self.has_alternatives and self._has("PartitionKey", "eq") and (point or rows)

    @property
    def is_partition(self) -> bool:
        """Whether it is one whole partition."""
        return not self.has_alternatives and self._has("PartitionKey", "eq")

    @property
    def is_range_of_partitions(self) -> bool:
        """Whether it begins or ends at a partition."""
        return not self.has_alternatives and self._has("PartitionKey", "ge", "gt", "le", "lt")


def parse_ranges(query: str) -> Ranges:
    """Parse the filter of a query, as the SDK sends it."""
    alternatives = re.split(r"\bor\b", query)
    with_keys = sum(bool(re.search(_KEY, part)) for part in alternatives)
    found = tuple((key, operator, bound) for key, operator, bound in _CONDITION.findall(query))
    return Ranges(found, with_keys > 1)


@dataclass
class TableQueries:
    """What was asked. `small`: tables whose partitions are small by design, and may be read whole.
    `rows`: the keys of all rows of a table, for counting what a query reads."""

    small: frozenset[str]
    rows: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    queries: list[tuple[str, str]] = field(default_factory=list)  # table and filter
    operations: int = 0
    scanned: int = 0

    def note(self, method: str, url: str) -> None:
        """Record one request. Raises PartitionScan."""
        parts = urlsplit(url)
        self.operations += 1
        parameters = parse_qs(parts.query)
        table = unquote(parts.path).rstrip("/").rpartition("/")[2]
        if method != "GET" or not table.endswith("()"):
            return
        table = table.removesuffix("()")
        query = parameters.get("$filter", [""])[0]
        if "NextPartitionKey" not in parameters:
            self.queries.append((table, query))
            top = parameters.get("$top")
            self._judge(table, query, int(top[0]) if top else None)

    def _judge(self, table: str, query: str, top: int | None) -> None:
        ranges = parse_ranges(query)
        read = sum(ranges.contains(*keys) for keys in self.rows.get(table, ()))
        self.scanned += read if top is None else min(read, top)
        is_small = table in self.small and ranges.is_partition
        is_page = top is not None and not ranges.has_alternatives  # the caller stops
        if not (is_small or is_page or ranges.is_bounded or ranges.is_range_of_partitions):
            raise PartitionScan(f"{table}: {query}")


class RecordingTransport(AioHttpTransport):
    """The SDK's own transport, which tells `queries` of each request before it sends it."""

    def __init__(self, queries: TableQueries) -> None:
        super().__init__()
        self.queries = queries

    async def send(self, request: Any, **options: Any) -> Any:
        self.queries.note(request.method, request.url)
        return await super().send(request, **options)
