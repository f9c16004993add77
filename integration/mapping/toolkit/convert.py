"""Convert the toolkit's entity maps to files, with a finding for each map. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from integration.mapping.model import EntityMap, Kind, LongId
from integration.mapping.toolkit.attributes import COLUMN, Target, has_template, is_expand
from integration.mapping.toolkit.blocks import (
    ID,
    UPDATED,
    VERSION,
    Block,
    convert_attributes,
    make_finding,
    resolve_table,
)
from integration.mapping.toolkit.elements import is_resource
from integration.mapping.toolkit.expansions import convert_expansion, describe_missing_columns
from integration.mapping.toolkit.findings import Conversion, ConversionStatus, Finding
from integration.mapping.toolkit.rows import EntityRow, Toolkit
from integration.mapping.toolkit.toml import ExpandBlock, render

# Tables without the columns that the relay fills itself, so their rows can only be children.
_CHILDREN = frozenset(
    "msemr_medicalidentifier msemr_contactlink msemr_codeableconcept "
    "msemr_careteamparticipantrole msemr_episodeofcare".split()
)

_CREATE_AND_UPDATE = frozenset({440670000, 440670001})


def convert(toolkit: Toolkit) -> Conversion:
    """Convert every map that can be; the findings say why others cannot."""
    maps = {entity.id: entity for entity in toolkit.entities}
    expansions = _find_expansions(toolkit)
    first: dict[str, EntityRow] = {}
    for entity in toolkit.entities:
        if not _find_obstacle(entity, toolkit) and entity.id not in expansions:
            # Enabled maps come before disabled ones.
            first.setdefault(entity.resource, entity)
    files: dict[str, str] = {}
    findings: list[Finding] = []
    for entity in toolkit.entities:
        if entity.id in expansions:
            continue
        why = _find_obstacle(entity, toolkit)
        chosen = first.get(entity.resource)
        if not why and chosen is not None and chosen is not entity:
            why = (
                f"the relay writes one table for each resource type, and took the map {chosen.name}"
            )
        if why:
            status = (
                ConversionStatus.OFF
                if entity.disabled or entity.inactive
                else ConversionStatus.FAILED
            )
            findings.append(_make_entity_finding(entity, status, why))
            continue
        text, more = _convert_entity(toolkit, maps, entity)
        findings += more
        if text:
            files[make_file_name(entity.resource)] = text
    findings += _find_unreported(toolkit, findings)
    return Conversion(files, tuple(findings), (*toolkit.notes, *_list_notes(toolkit)))


def make_file_name(resource: str) -> str:
    """Name the file as the shipped map of the resource, which it then replaces."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", resource).lower() + ".toml"


def _find_expansions(toolkit: Toolkit) -> set[str]:
    """Return the ids of the entity maps whose rows are children."""
    rows = (row for entity in toolkit.entities for row in entity.attributes)
    named = {row.expansion for row in rows if is_expand(row)}
    return {entity.id for entity in toolkit.entities if entity.expand or entity.id in named}


def _find_obstacle(entity: EntityRow, toolkit: Toolkit) -> str:
    """Say why the map cannot have a file of its own; "" if it can."""
    if entity.inactive:
        return "the entity map is deactivated"
    if not is_resource(entity.resource):
        return "its FHIR resource is not a resource type of R4"
    if not COLUMN.fullmatch(entity.table):
        return "its entity name is not the logical name of a table"
    if entity.table in _CHILDREN:
        missing = describe_missing_columns(toolkit.newer_columns, "expand", "expansion_map")
        return f"rows of {entity.table} can only be children; {missing or 'nothing expands it'}"
    return ""


def _convert_entity(
    toolkit: Toolkit, maps: Mapping[str, EntityRow], entity: EntityRow
) -> tuple[str | None, list[Finding]]:
    named, why = resolve_table(entity.table, toolkit.tables)
    target = Target(entity.table, entity.resource, toolkit.tables.get(entity.table))
    books = {named.key, ID, VERSION, UPDATED}
    kept, findings = convert_attributes(entity.name, entity.attributes, target, books)
    if not kept:
        return None, [
            _make_entity_finding(
                entity, ConversionStatus.FAILED, "none of its attribute maps could be converted"
            )
        ]
    expands: list[ExpandBlock] = []
    for row in entity.attributes:
        if is_expand(row):
            found, more = convert_expansion(toolkit, maps, entity, row)
            findings += more
            expands += [found] if found else []
    if entity.messages and entity.messages != _CREATE_AND_UPDATE:
        why.append("the toolkit mirrors only one of create and update, the relay both")
    ours = EntityMap(
        resource=entity.resource,
        table=entity.table,
        entity_set=named.entity_set,
        key=named.key,
        id_column=ID,
        version_column=VERSION,
        updated_column=UPDATED,
        kind_column=_find_kind_column(kept),
        long_id=LongId.REFUSE,
        variables={},
        attributes=tuple(block.map for block in kept),
        expands=tuple(block.map for block in expands),
        enabled=not entity.disabled,
        file=make_file_name(entity.resource),
    )
    finding = _make_entity_finding(
        entity, ConversionStatus.APPROXIMATE if why else ConversionStatus.EXACT, *why
    )
    heading = (
        f"{entity.resource} -> {entity.table}",
        f"From the Data integration toolkit: {entity.name}",
        *why,
    )
    return render(ours, heading, [block.comment for block in kept], expands), [finding, *findings]


def _find_kind_column(kept: Iterable[Block]) -> str | None:
    """Return the column whose constant tells patients from practitioners, which share a table."""
    found = [block.map.column for block in kept if block.map.kind is Kind.DEFAULT]
    return "msemr_contacttype" if "msemr_contacttype" in found else None


def _make_entity_finding(entity: EntityRow, status: ConversionStatus, *why: str) -> Finding:
    return Finding(
        map=entity.name,
        column=entity.table,
        action="entity map",
        source=entity.resource,
        status=status,
        path="",
        reasons=why,
    )


def _find_unreported(toolkit: Toolkit, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings for the rows of maps that were not converted at all."""
    reported = {finding.id for finding in findings}
    for entity in toolkit.entities:
        for row in entity.attributes:
            if row.id not in reported:
                off = row.disabled or row.inactive or entity.disabled or entity.inactive
                status = ConversionStatus.OFF if off else ConversionStatus.FAILED
                reasons = ["its entity map was not converted"]
                yield make_finding(entity.name, entity.table, row, status, reasons=reasons)


def _list_notes(toolkit: Toolkit) -> Iterator[str]:
    """Report what our maps do not hold, because the relay does it in another way."""
    rows = [row for entity in toolkit.entities for row in entity.attributes]
    templates = sum(has_template(row) for row in rows)
    writing = sum(entity.writeback for entity in toolkit.entities)
    if templates or writing:
        yield (
            f"Writing back was not converted: {writing} entity maps have it enabled, {templates} "
            "attribute maps have a template (c). The feed of the virtual tables writes to FHIR by "
            "paths of its own."
        )
