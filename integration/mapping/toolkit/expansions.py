"""Convert attribute maps of the action type Expand, whose rows are children. Pure.

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
    "Microsoft does not publish whether the toolkit removes rows that the resource no longer has; "
    "the relay removes those that it has created"
)
_EXPANSION_FAILED = "its expansion was not converted"


def convert_expansion(
    toolkit: Toolkit, maps: Mapping[str, EntityRow], parent: EntityRow, row: AttributeRow
) -> tuple[ExpandBlock | None, list[Finding]]:
    """Convert the expansion `row` of the map `parent`. `maps`: all entity maps by id."""
    child = maps.get(row.expansion)
    table = child.table if child else "(children)"
    if row.disabled or row.inactive or (child and (child.disabled or child.inactive)):
        off = ConversionStatus.OFF
        reasons = ["the map is disabled"]
        return None, [make_finding(parent.name, table, row, off, reasons=reasons)]
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
        failed = ConversionStatus.FAILED
        reasons = [str(problem)]
        return None, [make_finding(parent.name, table, row, failed, reasons=reasons), *findings]
    head = make_finding(
        parent.name,
        table,
        row,
        ConversionStatus.APPROXIMATE,
        path=found.map.path,
        reasons=found.comment[1:],
    )
    return found, [head, *findings]


def _convert_children(
    toolkit: Toolkit,
    parent: EntityRow,
    row: AttributeRow,
    child: EntityRow | None,
    findings: list[Finding],
) -> ExpandBlock:
    """Convert the child's rows, and add their findings. Raises Unconvertible."""
    missing = describe_missing_columns(
        toolkit.newer_columns, "expansion_map", "parent_link", "matching"
    )
    if missing:
        raise Unconvertible(missing)
    if child is None:
        raise Unconvertible("its expansion entity map is missing from the rows")
    if not COLUMN.fullmatch(child.parent_link) or not COLUMN.fullmatch(child.table):
        raise Unconvertible("its expansion entity map has no parent link attribute")
    if any(is_expand(attribute) for attribute in child.attributes):
        raise Unconvertible("the relay cannot write children of children")
    items = translate(extract_json_path(row), parent.resource)
    if items.type is None or is_primitive(items.type):
        raise Unconvertible("its path does not end at an element with child elements")
    named, guessed = resolve_table(child.table, toolkit.tables)
    target = Target(child.table, items.type, toolkit.tables.get(child.table))
    kept, more = convert_attributes(
        child.name, child.attributes, target, {named.key, child.parent_link}
    )
    findings += more
    match = tuple(
        attribute.column
        for attribute in child.attributes
        if attribute.matching and not attribute.disabled
    )
    if not match or not {block.map.column for block in kept}.issuperset(match):
        raise Unconvertible("not all columns used in record matching were converted")
    ours = ExpandMap(
        path=items.path,
        table=child.table,
        entity_set=named.entity_set,
        key=named.key,
        parent=child.parent_link,
        match=match,
        remove=ChildRemoval.OURS,
        attributes=tuple(block.map for block in kept),
    )
    origin = f"From {child.name}: {describe_source(row)}"
    comments = tuple(block.comment for block in kept)
    return ExpandBlock(ours, (origin, *items.caveats, *guessed, _LEFT_OVER), comments)


def describe_missing_columns(newer_columns: NewerColumns, *names: str) -> str:
    """Say which options are missing for columns whose names Microsoft does not publish; else ""."""
    options = " ".join(f"--column {name}=…" for name in names if not getattr(newer_columns, name))
    return (
        f"Microsoft does not publish the logical name of a column: give {options}"
        if options
        else ""
    )
