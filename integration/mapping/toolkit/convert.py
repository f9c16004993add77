"""The toolkit's entity maps become files of ours, with what is to be told of each map. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from integration.mapping.model import EntityMap, Kind, LongId
from integration.mapping.toolkit.attributes import COLUMN, Target, has_template, is_expand
from integration.mapping.toolkit.blocks import ID, UPDATED, VERSION, Block, blocks, table, told
from integration.mapping.toolkit.elements import is_resource
from integration.mapping.toolkit.expansions import expanded, unsaid
from integration.mapping.toolkit.findings import Converted, Fate, Finding
from integration.mapping.toolkit.rows import EntityRow, Toolkit
from integration.mapping.toolkit.toml import Children, rendered

# Tables without bookkeeping columns; their rows can only be children.
_CHILDREN = frozenset(
    "msemr_medicalidentifier msemr_contactlink msemr_codeableconcept "
    "msemr_careteamparticipantrole msemr_episodeofcare".split()
)

_CREATE_AND_UPDATE = frozenset({440670000, 440670001})


def convert(toolkit: Toolkit) -> Converted:
    """Every map becomes part of a file, or a reason why not."""
    maps = {entity.id: entity for entity in toolkit.entities}
    expansions = _expansions(toolkit)
    first: dict[str, EntityRow] = {}
    for entity in toolkit.entities:
        if not _unfit(entity, toolkit) and entity.id not in expansions:
            # They are ordered: one that is enabled comes before one that is not.
            first.setdefault(entity.resource, entity)
    files: dict[str, str] = {}
    findings: list[Finding] = []
    for entity in toolkit.entities:
        if entity.id in expansions:
            continue
        why = _unfit(entity, toolkit)
        chosen = first.get(entity.resource)
        if not why and chosen is not None and chosen is not entity:
            why = f"the relay has one table for each resource, the one of {chosen.name}"
        if why:
            fate = Fate.OFF if entity.disabled or entity.inactive else Fate.NOT
            findings.append(_told(entity, fate, why))
            continue
        text, more = _file(toolkit, maps, entity)
        findings += more
        if text:
            files[file_name(entity.resource)] = text
    findings += _forgotten(toolkit, findings)
    return Converted(files, tuple(findings), (*toolkit.notes, *_notes(toolkit)))


def file_name(resource: str) -> str:
    """The shipped maps are called so; one of the same name takes its place."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", resource).lower() + ".toml"


def _expansions(toolkit: Toolkit) -> set[str]:
    """The ids of the entity maps whose rows are children."""
    rows = (row for entity in toolkit.entities for row in entity.attributes)
    named = {row.expansion for row in rows if is_expand(row)}
    return {one.id for one in toolkit.entities if one.expand or one.id in named}


def _unfit(entity: EntityRow, toolkit: Toolkit) -> str:
    """Why there is no file for it; "" where there can be one."""
    if entity.inactive:
        return "the entity map is deactivated"
    if not is_resource(entity.resource):
        return "its FHIR resource is no resource type of R4"
    if not COLUMN.fullmatch(entity.table):
        return "its entity name is no logical name of a table"
    if entity.table in _CHILDREN:
        asked = unsaid(toolkit.later, "expand", "expansion_map")
        return f"rows of {entity.table} can only be children; {asked or 'nothing expands it'}"
    return ""


def _file(
    toolkit: Toolkit, maps: Mapping[str, EntityRow], entity: EntityRow
) -> tuple[str | None, list[Finding]]:
    named, why = table(entity.table, toolkit.tables)
    target = Target(entity.table, entity.resource, toolkit.tables.get(entity.table))
    books = {named.key, ID, VERSION, UPDATED}
    kept, findings = blocks(entity.name, entity.attributes, target, books)
    if not kept:
        return None, [_told(entity, Fate.NOT, "none of its attribute maps can be carried over")]
    expands: list[Children] = []
    for row in entity.attributes:
        if is_expand(row):
            found, more = expanded(toolkit, maps, entity, row)
            findings += more
            expands += [found] if found else []
    if entity.messages and entity.messages != _CREATE_AND_UPDATE:
        why.append("the toolkit heeds only one of create and update, the relay heeds both")
    ours = EntityMap(
        resource=entity.resource,
        table=entity.table,
        entity_set=named.entity_set,
        key=named.key,
        id_column=ID,
        version_column=VERSION,
        updated_column=UPDATED,
        kind_column=_kind_column(kept),
        long_id=LongId.REFUSE,
        variables={},
        attributes=tuple(one.map for one in kept),
        expands=tuple(one.map for one in expands),
        enabled=not entity.disabled,
        file=file_name(entity.resource),
    )
    told = _told(entity, Fate.APPROXIMATE if why else Fate.EXACT, *why)
    heading = (
        f"{entity.resource} -> {entity.table}",
        f"From the Data integration toolkit: {entity.name}",
        *why,
    )
    return rendered(ours, heading, [one.comment for one in kept], expands), [told, *findings]


def _kind_column(kept: Iterable[Block]) -> str | None:
    """Patients and practitioners share a table; a constant of theirs tells them apart."""
    found = [one.map.column for one in kept if one.map.kind is Kind.DEFAULT]
    return "msemr_contacttype" if "msemr_contacttype" in found else None


def _told(entity: EntityRow, fate: Fate, *why: str) -> Finding:
    return Finding(entity.name, entity.table, "entity map", entity.resource, fate, "", why)


def _forgotten(toolkit: Toolkit, findings: Iterable[Finding]) -> Iterator[Finding]:
    """No row without a word: those of maps that are not carried over as a whole."""
    known = {finding.id for finding in findings}
    for entity in toolkit.entities:
        for row in entity.attributes:
            if row.id not in known:
                off = row.disabled or row.inactive or entity.disabled or entity.inactive
                fate = Fate.OFF if off else Fate.NOT
                why = "its entity map is not carried over"
                yield told(entity.name, entity.table, row, fate, "", why)


def _notes(toolkit: Toolkit) -> Iterator[str]:
    """What has no place in our maps, because the relay does it otherwise."""
    rows = [row for entity in toolkit.entities for row in entity.attributes]
    templates = sum(has_template(row) for row in rows)
    writing = sum(entity.writeback for entity in toolkit.entities)
    if templates or writing:
        yield (
            f"Writing back is not carried over: {writing} entity maps have it enabled, {templates} "
            "attribute maps have a template (c). The feed for virtual tables writes to FHIR by "
            "paths of its own."
        )
