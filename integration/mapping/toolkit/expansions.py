"""An attribute map of the action type Expand becomes children of ours. Pure.

https://learn.microsoft.com/dynamics365/industry/healthcare/data-integration-toolkit-expansion-maps
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from integration.mapping.model import ChildRemoval, ExpandMap
from integration.mapping.toolkit.attributes import COLUMN, Target, extract_json_path, is_expand
from integration.mapping.toolkit.blocks import (
    convert_attributes,
    describe_source,
    make_finding,
    resolve_table,
)
from integration.mapping.toolkit.elements import is_primitive
from integration.mapping.toolkit.findings import ConversionStatus, Finding
from integration.mapping.toolkit.json_path import Unconvertible
from integration.mapping.toolkit.rows import AttributeRow, EntityRow, NewerColumns, Toolkit
from integration.mapping.toolkit.toml import ExpandBlock
from integration.mapping.toolkit.translate import translate

_LEFT_OVER = (
    "whether the toolkit removes rows that the resource no longer has is not published; here those "
    "go that the relay has made"
)
_EXPANSION_FAILED = "its expansion is not carried over"


def convert_expansion(
    toolkit: Toolkit, maps: Mapping[str, EntityRow], parent: EntityRow, row: AttributeRow
) -> tuple[ExpandBlock | None, list[Finding]]:
    """The children of `parent` that `row` makes, and what is to be told; `maps` are by id."""
    child = maps.get(row.expansion)
    shown = child.table if child else "(children)"
    if row.disabled or row.inactive or (child and (child.disabled or child.inactive)):
        return None, [
            make_finding(parent.name, shown, row, ConversionStatus.OFF, "", "the map is disabled")
        ]
    findings: list[Finding] = []
    try:
        found = _convert_children(toolkit, parent, row, child, findings)
    except Unconvertible as problem:
        findings = [
            finding
            if finding.status is ConversionStatus.OFF
            else replace(finding, status=ConversionStatus.FAILED, reasons=(_EXPANSION_FAILED,))
            for finding in findings
        ]
        return None, [
            make_finding(parent.name, shown, row, ConversionStatus.FAILED, "", str(problem)),
            *findings,
        ]
    why = found.comment[1:]
    head = make_finding(parent.name, shown, row, ConversionStatus.APPROXIMATE, found.map.path, *why)
    return found, [head, *findings]


def _convert_children(
    toolkit: Toolkit,
    parent: EntityRow,
    row: AttributeRow,
    child: EntityRow | None,
    findings: list[Finding],
) -> ExpandBlock:
    """Adds to `findings` what is to be told of the child's rows. Raises NotRead."""
    missing = describe_missing_columns(
        toolkit.newer_columns, "expansion_map", "parent_link", "matching"
    )
    if missing:
        raise Unconvertible(missing)
    if child is None:
        raise Unconvertible("its expansion entity map is not among the rows")
    if not COLUMN.fullmatch(child.parent_link) or not COLUMN.fullmatch(child.table):
        raise Unconvertible("its expansion entity map has no parent link attribute")
    if any(is_expand(one) for one in child.attributes):
        raise Unconvertible("children of children cannot be written")
    items = translate(extract_json_path(row), parent.resource)
    if items.type is None or is_primitive(items.type):
        raise Unconvertible("its path ends at no element with elements of its own")
    named, guessed = resolve_table(child.table, toolkit.tables)
    target = Target(child.table, items.type, toolkit.tables.get(child.table))
    kept, more = convert_attributes(
        child.name, child.attributes, target, {named.key, child.parent_link}
    )
    findings += more
    match = tuple(one.column for one in child.attributes if one.matching and not one.disabled)
    if not match or not {one.map.column for one in kept}.issuperset(match):
        raise Unconvertible("the columns that are used in record matching are not all carried over")
    ours = ExpandMap(
        path=items.path,
        table=child.table,
        entity_set=named.entity_set,
        key=named.key,
        parent=child.parent_link,
        match=match,
        remove=ChildRemoval.OURS,
        attributes=tuple(one.map for one in kept),
    )
    origin = f"From {child.name}: {describe_source(row)}"
    comments = tuple(one.comment for one in kept)
    return ExpandBlock(ours, (origin, *items.caveats, *guessed, _LEFT_OVER), comments)


def describe_missing_columns(newer_columns: NewerColumns, *names: str) -> str:
    """What to ask for, where the logical names of columns are not known."""
    options = " ".join(f"--column {name}=…" for name in names if not getattr(newer_columns, name))
    return f"the logical name of a column is not published; say {options}" if options else ""
