"""Read rows of the toolkit from files, and write our maps into files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Misconfigured
from integration.mapping.load import parse_map
from integration.mapping.toolkit.findings import Conversion, as_markdown
from integration.mapping.toolkit.rows import TABLES

REPORT = "report.md"

# Bytes. Thousands of maps are some megabytes.
_MAX_BYTES = 200_000_000


def read_rows(source: Path) -> dict[str, list[dict[str, Any]]]:
    """Read rows, by table, from one file or from all JSON files of a folder.

    A file is an object with the rows of each table, or a collection of the Web API, whose rows are
    told apart by their primary keys. Raises Misconfigured.
    """
    files = sorted(source.glob("*.json")) if source.is_dir() else [source]
    found: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        for table, row in _read_file(file):
            found.setdefault(table, []).append(row)
    if not found:
        raise Misconfigured(
            f"{source.name}: there are no rows of {', '.join(TABLES)}: export these tables"
        )
    return found


def write(converted: Conversion, folder: Path) -> list[Path]:
    """Write the maps and the report. Raises Misconfigured instead of replacing a file."""
    texts = {**converted.files, REPORT: as_markdown(converted)}
    existing = [name for name in texts if (folder / name).exists()]
    if existing:
        raise Misconfigured(f"{', '.join(existing)} already exists: name another folder with --to")
    for name, text in converted.files.items():
        parse_map(text, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise Misconfigured(f"{folder.name}: {error.strerror}") from None
    return [folder / name for name in texts]


def _read_file(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, items in _read_tables(file).items():
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise Misconfigured(f"{file.name}: {name} is not a list of rows")
        for item in items:
            table = name if name in TABLES else _infer_table(item)
            if table:
                yield table, item


def _read_tables(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise Misconfigured(f"{file.name}: larger than {_MAX_BYTES} bytes")
        # Spreadsheets and PowerShell write a byte order mark first.
        data = decimal_json.decode(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise Misconfigured(f"{file.name}: {error.strerror}") from None
    except decimal_json.Malformed as problem:
        raise Misconfigured(f"{file.name}: {problem}") from None
    if not isinstance(data, dict):
        raise Misconfigured(f"{file.name}: not an object with tables or a value")
    kept: dict[str, Any] = {}
    for name, items in data.items():
        if name in TABLES or name == "value":
            kept[name] = items["value"] if isinstance(items, dict) and "value" in items else items
    return kept


def _infer_table(row: dict[str, Any]) -> str:
    return next((table for table in TABLES if f"{table}id" in row), "")
