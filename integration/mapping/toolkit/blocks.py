"""The attribute maps of one table become the attributes of a block of ours. Pure."""

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

# The bookkeeping columns of the healthcare tables, and the path of each:
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
    """One attribute map of ours, and the comment above it."""

    map: AttributeMap
    comment: tuple[str, ...]


def convert_attributes(
    name: str, rows: Sequence[AttributeRow], target: Target, managed_columns: Collection[str]
) -> tuple[list[Block], list[Finding]]:
    """Those that can be carried over, a column once, and what is to be told of each row.

    `name` is the entity map's; `books` are columns that the relay fills by itself.
    """
    kept: dict[str, Block] = {}
    findings: list[Finding] = []
    for row in rows:
        if is_expand(row):
            continue
        fate, path, why = (
            ConversionStatus.FAILED,
            "",
            ["the column is mapped already, by a row above"],
        )
        if row.disabled or row.inactive:
            fate, why = ConversionStatus.OFF, ["the attribute map is disabled"]
        elif row.column in managed_columns:
            fate, path, why = _check_managed_column(row, target)
        elif row.column not in kept:
            try:
                found = convert_attribute(row, target)
            except Unconvertible as problem:
                why = [str(problem)]
            else:
                fate = ConversionStatus.APPROXIMATE if found.caveats else ConversionStatus.EXACT
                path, why = found.map.path or "", list(found.caveats)
                action = f"{describe_action(row)} {describe_source(row)}"
                origin = f"From {row.name or row.id}: {action}".rstrip()
                kept[row.column] = Block(found.map, (origin, *why))
        findings.append(make_finding(name, target.table, row, fate, path, *why))
    return list(kept.values()), findings


def make_finding(
    name: str, table: str, row: AttributeRow, fate: ConversionStatus, path: str, *why: str
) -> Finding:
    """What became of a row of the entity map `name`."""
    column = table if is_expand(row) else f"{table}.{row.column}"
    return Finding(
        name, column, describe_action(row), describe_source(row), fate, path, why, row.id
    )


def describe_source(row: AttributeRow) -> str:
    """The JSONPath, or what stands in its place."""
    try:
        return extract_json_path(row)
    except Unconvertible:
        return row.element_map


def resolve_table(name: str, tables: Mapping[str, Table]) -> tuple[Table, list[str]]:
    """Its entity set and key, as the metadata says, as is published, or as Dataverse would name
    them; and what to tell of a guess."""
    table = tables.get(name)
    if table is not None:
        return table, []
    key = _KEYS.get(name, f"{name}id")
    if _PUBLISHED.fullmatch(name):
        return Table(f"{name}s", key), []
    many = f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"
    if re.search(r"[^aeiou]y$", name):
        many = f"{name[:-1]}ies"
    return Table(many, key), [f"entity_set {many} and key {key} are guessed: check them"]


def _check_managed_column(
    row: AttributeRow, target: Target
) -> tuple[ConversionStatus, str, list[str]]:
    """A column that says which resource the row shows."""
    try:
        path = translate(extract_json_path(row), target.type).path
    except Unconvertible:
        path = ""
    if path and path == _VERSION_PATHS.get(row.column):
        return ConversionStatus.EXACT, path, ["the relay fills it without a map"]
    return ConversionStatus.FAILED, "", ["the relay fills this column itself, from something else"]
