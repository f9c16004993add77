"""Store rows, their alternate keys and their history in SQLite.

A row is a JSON document, so tables need no DDL. Every write takes the next number of one global
version counter, like Dataverse's row version.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from local.dataverse import refusals
from local.dataverse.tables import Key, Table

SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    tbl TEXT, id TEXT, version INTEGER, body TEXT, PRIMARY KEY (tbl, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alternate_keys (
    tbl TEXT, name TEXT, value TEXT, id TEXT, PRIMARY KEY (tbl, name, value)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_of_row ON alternate_keys (tbl, id);
CREATE TABLE IF NOT EXISTS history (
    seq INTEGER PRIMARY KEY, tbl TEXT, id TEXT, version INTEGER, action TEXT, body TEXT);
CREATE INDEX IF NOT EXISTS history_of_row ON history (tbl, id);
CREATE TABLE IF NOT EXISTS definitions (tbl TEXT PRIMARY KEY, body TEXT);
CREATE TABLE IF NOT EXISTS counter (version INTEGER);
INSERT INTO counter SELECT 1000000 WHERE NOT EXISTS (SELECT 1 FROM counter);
"""

# Indexed expressions for frequent lookups, exactly as conditions.build_path writes them.
INDEXED = (
    "json_extract(body, '$.\"contactid\"')",
    "fold(json_extract(body, '$.\"msemr_azurefhirid\"'))",
    "json_extract(body, '$.\"_msemr_assignee_value\"')",
    "json_extract(body, '$.\"_msemr_patient_value\"')",
    "fold(json_extract(body, '$.\"msemr_code\"'))",
)

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    version: int
    values: Values

    @property
    def etag(self) -> str:
        return f'W/"{self.version}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A compiled query: a condition with bound parameters, an order, a limit and an offset."""

    where: str
    parameters: list[Any]
    order: str
    limit: int
    offset: int


class Store:
    """One SQLite connection. `transaction` nests by savepoints."""

    def __init__(self, database: str) -> None:
        self._db = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)
        # Dataverse compares text without regard to case:
        # https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows
        self._db.create_function("fold", 1, fold, deterministic=True)
        self._make_indexes()
        self._depth = 0

    def _make_indexes(self) -> None:
        """Create the indexes, with statistics of a large table: without them none is used.
        https://sqlite.org/fileformat2.html#stat1tab"""
        self._db.execute("ANALYZE")
        self._db.execute("DELETE FROM sqlite_stat1")
        sizes = {"rows": "100000 20000 1"}
        for number, expression in enumerate(INDEXED):
            self._db.execute(f"CREATE INDEX IF NOT EXISTS by_{number} ON rows (tbl, {expression})")
            sizes[f"by_{number}"] = "100000 20000 2"
        self._db.executemany("INSERT INTO sqlite_stat1 VALUES ('rows', ?, ?)", sizes.items())
        self._db.execute("ANALYZE sqlite_schema")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        name = f"level{self._depth}"
        self._db.execute(f"SAVEPOINT {name}")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._db.execute(f"ROLLBACK TO {name}")
            raise
        finally:
            self._depth -= 1
            self._db.execute(f"RELEASE {name}")

    def get(self, table: Table, row_id: str) -> Row | None:
        found = self._db.execute(
            "SELECT id, version, body FROM rows WHERE tbl = ? AND id = ?", (table.name, row_id)
        ).fetchone()
        return _read_row(found) if found else None

    def find_id(self, table: Table, key: Key, values: Values) -> str | None:
        found = self._db.execute(
            "SELECT id FROM alternate_keys WHERE tbl = ? AND name = ? AND value = ?",
            (table.name, key.name, _encode_key(table, key, values)),
        ).fetchone()
        return str(found[0]) if found else None

    def find(self, table: Table, window: Slice) -> list[Row]:
        # Both fragments come from the compiler in filters.py, which binds every value.
        sql = (
            f"SELECT id, version, body FROM rows WHERE tbl = ? AND ({window.where}) "  # noqa: S608
            f"ORDER BY {window.order} LIMIT ? OFFSET ?"
        )
        parameters = [table.name, *window.parameters, window.limit, window.offset]
        return [_read_row(found) for found in self._db.execute(sql, parameters)]

    def count(self, table: Table, where: str, parameters: list[Any]) -> int:
        sql = f"SELECT COUNT(*) FROM rows WHERE tbl = ? AND ({where})"  # noqa: S608
        return int(self._db.execute(sql, [table.name, *parameters]).fetchone()[0])

    def put(self, table: Table, row_id: str, values: Values, action: str) -> Row:
        """Write the whole row. Raises Refusal if another row has the same key value."""
        with self.transaction():
            row = Row(row_id, self._next_version(), values)
            stored = {**values, "versionnumber": row.version}
            body = json.dumps(stored)
            self._db.execute(
                "INSERT INTO rows VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET version = excluded.version, body = excluded.body",
                (table.name, row_id, row.version, body),
            )
            self._index_keys(table, row_id, values)
            self._record_history(table, row, action, body)
        return Row(row_id, row.version, stored)

    def seed(self, table: Table, rows: Mapping[str, Values]) -> None:
        """Insert built-in rows without history, unless they exist."""
        version = self._next_version()
        self._db.executemany(
            "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?)",
            [
                (table.name, row_id, version, json.dumps({table.primary_id: row_id, **values}))
                for row_id, values in rows.items()
            ],
        )

    def build_index(self, table: Table) -> None:
        """Index the rows for the table's keys. Raises Refusal if two rows have the same values."""
        with self.transaction():
            sql = "SELECT id, version, body FROM rows WHERE tbl = ?"
            for found in self._db.execute(sql, (table.name,)).fetchall():
                row = _read_row(found)
                self._index_keys(table, row.id, row.values)

    def drop_index(self, table: Table, key: str) -> None:
        sql = "DELETE FROM alternate_keys WHERE tbl = ? AND name = ?"
        self._db.execute(sql, (table.name, key))

    def delete(self, table: Table, row: Row) -> None:
        with self.transaction():
            row_key = (table.name, row.id)
            self._db.execute("DELETE FROM rows WHERE tbl = ? AND id = ?", row_key)
            self._db.execute("DELETE FROM alternate_keys WHERE tbl = ? AND id = ?", row_key)
            deleted = Row(row.id, self._next_version(), {})
            self._record_history(table, deleted, "delete", "{}")

    def find_referring(self, table: Table, row_id: str) -> list[Row]:
        """Return rows of the table that contain the id anywhere; the caller checks the columns."""
        sql = "SELECT id, version, body FROM rows WHERE tbl = ? AND instr(body, ?) > 0"
        return [_read_row(found) for found in self._db.execute(sql, (table.name, row_id))]

    def read_version(self) -> int:
        """Return the version of the last write."""
        return int(self._db.execute("SELECT version FROM counter").fetchone()[0])

    def find_deleted(self, table: Table, after: int) -> list[tuple[int, str]]:
        """Return version and id of the rows that were deleted after a version, and are not back."""
        sql = (
            "SELECT version, id FROM history h WHERE tbl = ? AND action = 'delete' AND version > ? "
            "AND NOT EXISTS (SELECT 1 FROM rows WHERE tbl = h.tbl AND id = h.id) ORDER BY version"
        )
        return self._db.execute(sql, (table.name, after)).fetchall()

    def read_history(self, table: Table, row_id: str) -> list[dict[str, Any]]:
        sql = "SELECT version, action, body FROM history WHERE tbl = ? AND id = ? ORDER BY seq"
        return [
            {"version": version, "action": action, "values": json.loads(body)}
            for version, action, body in self._db.execute(sql, (table.name, row_id))
        ]

    def count_by_table(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT tbl, COUNT(*) FROM rows GROUP BY tbl").fetchall())

    def define(self, name: str, data: dict[str, Any]) -> None:
        """Store the definition of a table that differs from the files, or has none."""
        body = json.dumps(data)
        self._db.execute("INSERT OR REPLACE INTO definitions VALUES (?, ?)", (name, body))

    def read_definitions(self) -> list[dict[str, Any]]:
        found = self._db.execute("SELECT body FROM definitions").fetchall()
        return [json.loads(body) for (body,) in found]

    def clear(self) -> None:
        """Delete everything except the version counter: an etag never names two states."""
        with self.transaction():
            self._db.execute("DELETE FROM definitions")
            self._db.execute("DELETE FROM rows")
            self._db.execute("DELETE FROM alternate_keys")
            self._db.execute("DELETE FROM history")

    def _next_version(self) -> int:
        sql = "UPDATE counter SET version = version + 1 RETURNING version"
        return int(self._db.execute(sql).fetchone()[0])

    def _index_keys(self, table: Table, row_id: str, values: Values) -> None:
        self._db.execute(
            "DELETE FROM alternate_keys WHERE tbl = ? AND id = ?", (table.name, row_id)
        )
        for key in table.active_keys:
            # A row without a value is not in the key's index, so many rows may have none.
            if any(values.get(name) is None for name in table.key_properties(key)):
                continue
            try:
                self._db.execute(
                    "INSERT INTO alternate_keys VALUES (?, ?, ?, ?)",
                    (table.name, key.name, _encode_key(table, key, values), row_id),
                )
            except sqlite3.IntegrityError as error:
                labels = ", ".join(table.columns[column].label for column in key.columns)
                raise refusals.key_taken(key.name, labels) from error

    def _record_history(self, table: Table, row: Row, action: str, body: str) -> None:
        self._db.execute(
            "INSERT INTO history (tbl, id, version, action, body) VALUES (?, ?, ?, ?, ?)",
            (table.name, row.id, row.version, action, body),
        )


def fold(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _encode_key(table: Table, key: Key, values: Values) -> str:
    parts = [fold(values[name]) for name in table.key_properties(key)]
    return json.dumps(parts)


def _read_row(found: tuple[str, int, str]) -> Row:
    row_id, version, body = found
    return Row(row_id, version, json.loads(body))
