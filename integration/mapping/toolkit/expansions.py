"""An attribute map of the action type Expand becomes children of ours. Pure.

https://learn.microsoft.com/dynamics365/industry/healthcare/data-integration-toolkit-expansion-maps
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from integration.mapping.model import ChildRemoval, ExpandMap
from integration.mapping.toolkit.attributes import COLUMN, Target, is_expand, selection
from integration.mapping.toolkit.blocks import blocks, source, table, told
from integration.mapping.toolkit.elements import is_primitive
from integration.mapping.toolkit.findings import Fate, Finding
from integration.mapping.toolkit.json_path import NotRead
from integration.mapping.toolkit.rows import AttributeRow, EntityRow, Later, Toolkit
from integration.mapping.toolkit.toml import Children
from integration.mapping.toolkit.translate import translate

_LEFT_OVER = (
    "whether the toolkit removes rows that the resource no longer has is not published; here those "
    "go that the relay has made"
)
_NOT_EITHER = "its expansion is not carried over"


def expanded(
    toolkit: Toolkit, maps: Mapping[str, EntityRow], parent: EntityRow, row: AttributeRow
) -> tuple[Children | None, list[Finding]]:
    """The children of `parent` that `row` makes, and what is to be told; `maps` are by id."""
    child = maps.get(row.expansion)
    shown = child.table if child else "(children)"
    if row.disabled or row.inactive or (child and (child.disabled or child.inactive)):
        return None, [told(parent.name, shown, row, Fate.OFF, "", "the map is disabled")]
    findings: list[Finding] = []
    try:
        found = _children(toolkit, parent, row, child, findings)
    except NotRead as problem:
        findings = [
            one if one.fate is Fate.OFF else replace(one, fate=Fate.NOT, why=(_NOT_EITHER,))
            for one in findings
        ]
        return None, [told(parent.name, shown, row, Fate.NOT, "", str(problem)), *findings]
    why = found.comment[1:]
    head = told(parent.name, shown, row, Fate.APPROXIMATE, found.map.path, *why)
    return found, [head, *findings]


def _children(
    toolkit: Toolkit,
    parent: EntityRow,
    row: AttributeRow,
    child: EntityRow | None,
    findings: list[Finding],
) -> Children:
    """Adds to `findings` what is to be told of the child's rows. Raises NotRead."""
    wanted = unsaid(toolkit.later, "expansion_map", "parent_link", "matching")
    if wanted:
        raise NotRead(wanted)
    if child is None:
        raise NotRead("its expansion entity map is not among the rows")
    if not COLUMN.fullmatch(child.parent_link) or not COLUMN.fullmatch(child.table):
        raise NotRead("its expansion entity map has no parent link attribute")
    if any(is_expand(one) for one in child.attributes):
        raise NotRead("children of children cannot be written")
    items = translate(selection(row), parent.resource)
    if items.type is None or is_primitive(items.type):
        raise NotRead("its path ends at no element with elements of its own")
    named, guessed = table(child.table, toolkit.tables)
    target = Target(child.table, items.type, toolkit.tables.get(child.table))
    kept, more = blocks(child.name, child.attributes, target, {named.key, child.parent_link})
    findings += more
    match = tuple(one.column for one in child.attributes if one.matching and not one.disabled)
    if not match or not {one.map.column for one in kept}.issuperset(match):
        raise NotRead("the columns that are used in record matching are not all carried over")
    ours = ExpandMap(
        items.path,
        child.table,
        named.entity_set,
        named.key,
        child.parent_link,
        match,
        ChildRemoval.OURS,
        tuple(one.map for one in kept),
    )
    origin = f"From {child.name}: {source(row)}"
    comments = tuple(one.comment for one in kept)
    return Children(ours, (origin, *items.caveats, *guessed, _LEFT_OVER), comments)


def unsaid(later: Later, *names: str) -> str:
    """What to ask for, where the logical names of columns are not known."""
    options = " ".join(f"--column {name}=…" for name in names if not getattr(later, name))
    return f"the logical name of a column is not published; say {options}" if options else ""
