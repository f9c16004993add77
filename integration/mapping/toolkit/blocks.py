"""Convert the attribute maps of one table. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from integration.mapping.model import AttributeMap
from integration.mapping.toolkit.attributes import (
    Target,
    convert_attribute,
    describe_action,
    extract_json_path,
    is_expand,
)
from integration.mapping.toolkit.findings import ConversionStatus, Finding
from integration.mapping.toolkit.json_path import Unconvertible
from integration.mapping.toolkit.rows import AttributeRow, Table
from integration.mapping.toolkit.translate import translate

# The columns of the healthcare tables that the relay fills itself, and the path of each:
# microsoft/CDM schemaDocuments/Healthcare/AzureAPIforFHIRsupport/SyncAgentCDMUpdates
ID, VERSION, UPDATED = (
    "msemr_azurefhirid",
    "msemr_azurefhirversion",
    "msemr_azurefhirlastupdatedon",
)
_VERSION_PATHS = {ID: "id", VERSION: "meta.versionId", UPDATED: "meta.lastUpdated"}

_KEYS = {"msemr_appointmentemr": "activityid"}
_PUBLISHED = re.compile(r"contact|account|msemr_\w+")


@dataclass(frozen=True, slots=True)
class Block:
    """An attribute map of ours, and the lines of the comment above it."""

    map: AttributeMap
    comment: tuple[str, ...]


def convert_attributes(
    name: str, rows: Sequence[AttributeRow], target: Target, managed_columns: Collection[str]
) -> tuple[list[Block], list[Finding]]:
    """Convert what can be, each column once. Return a finding for every row but expansions.

    `name` is the entity map's. `managed_columns` are those that the relay fills itself.
    """
    kept: dict[str, Block] = {}
    findings: list[Finding] = []
    for row in rows:
        if is_expand(row):
            continue
        status, path = ConversionStatus.FAILED, ""
        reasons = ["a row above already maps the column"]
        if row.disabled or row.inactive:
            status, reasons = ConversionStatus.OFF, ["the attribute map is disabled"]
        elif row.column in managed_columns:
            status, path, reasons = _check_managed_column(row, target)
        elif row.column not in kept:
            try:
                found = convert_attribute(row, target)
            except Unconvertible as problem:
                reasons = [str(problem)]
            else:
                status = ConversionStatus.APPROXIMATE if found.caveats else ConversionStatus.EXACT
                path, reasons = found.map.path or "", list(found.caveats)
                action = f"{describe_action(row)} {describe_source(row)}"
                origin = f"From {row.name or row.id}: {action}".rstrip()
                kept[row.column] = Block(found.map, (origin, *reasons))
        findings.append(make_finding(name, target.table, row, status, path=path, reasons=reasons))
    return list(kept.values()), findings


def make_finding(
    name: str,
    table: str,
    row: AttributeRow,
    status: ConversionStatus,
    *,
    path: str = "",
    reasons: Sequence[str] = (),
) -> Finding:
    """Build the finding of a row of the entity map `name`."""
    column = table if is_expand(row) else f"{table}.{row.column}"
    return Finding(
        map=name,
        column=column,
        action=describe_action(row),
        source=describe_source(row),
        status=status,
        path=path,
        reasons=tuple(reasons),
        id=row.id,
    )


def describe_source(row: AttributeRow) -> str:
    """Return the JSONPath, or whatever the element map holds instead."""
    try:
        return extract_json_path(row)
    except Unconvertible:
        return row.element_map


def resolve_table(name: str, tables: Mapping[str, Table]) -> tuple[Table, list[str]]:
    """Return the table's entity set and key, and a caveat if they are guessed.

    They come from metadata, from Microsoft's schema, or from how Dataverse names them by default.
    """
    table = tables.get(name)
    if table is not None:
        return table, []
    key = _KEYS.get(name, f"{name}id")
    if _PUBLISHED.fullmatch(name):
        return Table(f"{name}s", key), []
    many = f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"
    if re.search(r"[^aeiou]y$", name):
        many = f"{name[:-1]}ies"
    return Table(many, key), [f"entity_set {many} and key {key} are guesses: check them"]


def _check_managed_column(
    row: AttributeRow, target: Target
) -> tuple[ConversionStatus, str, list[str]]:
    """Tell whether the relay fills the column with what the toolkit's path finds."""
    try:
        path = translate(extract_json_path(row), target.type).path
    except Unconvertible:
        path = ""
    if path and path == _VERSION_PATHS.get(row.column):
        return ConversionStatus.EXACT, path, ["the relay fills it itself"]
    return ConversionStatus.FAILED, "", ["the relay fills this column itself, with another value"]
