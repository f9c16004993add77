"""Which columns of the physical table show the properties of the feed. Pure.

A map has an attribute for both routes, or one for each. The feed's property is the attribute of the
virtual route, so its counterpart on the other route is looked for: the same column, else the column
that is mapped from the same path, else a column of the row that a lookup leads to: of a concept, or
of the patient. A property without a counterpart is null on this route: Microsoft's table has no
column for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from integration.core.model import Column, Columns
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.model import AttributeMap, EntityMap, Kind, Route
from integration.mapping.patient_columns import find_patient_lookup
from integration.odata.model import EntityType, Property, Type
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.physical.own_table import build_concept_name_path

# The types of columns whose values a property can show.
_COLUMN_TYPES: Mapping[Type, frozenset[str]] = {
    Type.STRING: frozenset({"String", "Memo"}),
    Type.INT32: frozenset({"Integer", "BigInt", "Picklist", "State", "Status", "Boolean"}),
    Type.INT64: frozenset({"Integer", "BigInt"}),
    Type.DECIMAL: frozenset({"Decimal", "Double", "Money", "Integer", "BigInt"}),
    Type.BOOLEAN: frozenset({"Boolean"}),
    Type.DATE_TIME_OFFSET: frozenset({"DateTime"}),
    Type.GUID: frozenset({"Lookup", "Customer", "Owner", "Uniqueidentifier"}),
}

# The column that says whether a row is active, which is 0:
# https://learn.microsoft.com/power-apps/developer/data-platform/define-custom-state-model-transitions
STATE = "statecode"

# The columns of a concept by the paths below that of the concept.
_CONCEPT_COLUMNS = {
    ".coding.first().code": CONCEPT_TABLE.code,
    ".coding.first().display": CONCEPT_TABLE.name,
}

# The columns of a contact that show what the feed shows of a patient.
_CONTACT = "contact"
_FULL_NAME, _BIRTH_DATE = "fullname", "birthdate"

_RELATED_TABLES = frozenset({CONCEPT_TABLE.table, _CONTACT})


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalColumn:
    """A column that shows a property. `lookup`: where it is one of another row, the lookup that
    leads there, and by which navigation property. `is_day`: it holds a day, whatever its type.
    `is_part`: it shows one of the elements that the property shows the first of. `copies`: other
    columns of the same row that hold the same; whatever is written to it is written to them."""

    column: Column
    lookup: Column | None = None
    navigation: str | None = None
    is_day: bool = False
    is_part: bool = False
    copies: tuple[Column, ...] = ()

    @property
    def name(self) -> str:
        """The name by which the Web API returns it, in its row."""
        return _name_property(self.column)

    @property
    def path(self) -> str:
        """What a filter compares."""
        return self.name if self.navigation is None else f"{self.navigation}/{self.name}"


def _name_property(column: Column) -> str:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/web-api-properties#lookup-properties"""
    is_lookup = column.type in ("Lookup", "Customer", "Owner")
    return f"_{column.name}_value" if is_lookup else column.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalTable:
    """A table of Dataverse behind an entity type of the feed.

    `columns`: by property, the columns that show it, of which the first that has a value does; a
    property without one is null. `key`: the primary key's column; `id_column`: that of the FHIR id.
    `lookup_tables`: by property of a lookup, the table whose rows it shows; `lookup_sets`: its
    entity set. `has_state`: whether its rows may be inactive.
    """

    entity_type: MappedEntityType
    entity_set: str
    table: str
    key: str
    id_column: str
    columns: Mapping[str, tuple[PhysicalColumn, ...]] = field(repr=False)
    lookup_tables: Mapping[str, str] = field(repr=False)
    lookup_sets: Mapping[str, str] = field(repr=False)
    has_state: bool = True

    @property
    def newest(self) -> tuple[PhysicalColumn, ...]:
        """The columns by which a list without an order is sorted, newest first."""
        parameter = self.entity_type.entity.newest_by
        for name, attribute in self.entity_type.attributes.items():
            search = attribute.virtual_column.search
            if parameter is not None and search is not None and search.name == parameter:
                found = tuple(column for column in self.columns[name] if column.lookup is None)
                if found:
                    return found
        return ()

    @property
    def type(self) -> EntityType:
        """The entity type that the feed shows."""
        return self.entity_type.type

    @property
    def missing(self) -> tuple[str, ...]:
        """The properties that are null on this route."""
        return tuple(
            property_.name for property_ in self.type.properties if not self.columns[property_.name]
        )


def list_related_tables(columns: Columns) -> list[str]:
    """List the tables whose columns may show properties, beside the table with these columns."""
    targets = {target for column in columns.values() for target in column.targets}
    return sorted(_RELATED_TABLES & targets)


def build_physical_table(
    entity_type: MappedEntityType,
    entity: EntityMap,
    columns: Columns,
    related: Mapping[str, Columns],
    maps: Mapping[str, EntityMap],
) -> PhysicalTable:
    """Find the columns behind each property.

    `entity`: the map with the attributes of all routes; `columns`: those of its table, as
    Dataverse's metadata describes them; `related`: those of the tables of `list_related_tables`;
    `maps`: by resource type, the targets of lookups.
    """
    written = entity.select_route(Route.DATAVERSE)
    fixed = dict(
        zip(
            (entity.key, *entity.version_columns),
            (written.key, *written.version_columns),
            strict=True,
        )
    )
    found: dict[str, tuple[PhysicalColumn, ...]] = {}
    for property_ in entity_type.type.properties:
        attribute = entity_type.attributes.get(property_.name)
        if attribute is None:  # the key, or one that says which version of what the row shows
            candidates = [_Candidate(fixed[property_.name])]
        else:
            candidates = list(_find_candidates(entity_type, attribute, written.attributes))
        selected = _select(candidates, property_, attribute, columns, related)
        found[property_.name] = _join_copies(list(selected))
    targets = _find_lookup_targets(entity_type, maps)
    return PhysicalTable(
        entity_type=entity_type,
        entity_set=written.entity_set,
        table=written.table,
        key=written.key,
        id_column=written.id_column,
        columns=found,
        lookup_tables={name: target.table for name, target in targets.items()},
        lookup_sets={name: target.entity_set for name, target in targets.items()},
        has_state=STATE in columns,
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A column; with `related`, that one of the row of `table` to which it leads. `is_part`: see
    PhysicalColumn."""

    column: str
    related: str | None = None
    table: str = ""
    is_part: bool = False


def _find_candidates(
    entity_type: MappedEntityType, attribute: AttributeMap, written: Sequence[AttributeMap]
) -> Iterator[_Candidate]:
    """Yield the columns that may show what the attribute shows, the best first."""
    if entity_type.patient is not None and attribute in entity_type.patient.attributes:
        yield from _find_patient_candidates(entity_type, attribute, written)
        return
    is_concept = attribute.kind is Kind.CONCEPT
    if attribute.route is None:
        if is_concept:
            yield _Candidate(attribute.column, CONCEPT_TABLE.name, CONCEPT_TABLE.table)
        else:
            yield _Candidate(attribute.column)
    path = attribute.path or ""
    for path_ in _split_union(path):
        is_part = path_ != path
        for other in written:
            if (other.path == path_ and not is_concept and _shows_the_same(attribute, other)) or (
                is_concept and other.path == build_concept_name_path(path_)
            ):
                yield _Candidate(other.column, is_part=is_part)
            elif other.kind is Kind.CONCEPT and other.path and path_.startswith(other.path):
                related = _CONCEPT_COLUMNS.get(path_[len(other.path) :])
                if related is not None:
                    yield _Candidate(other.column, related, CONCEPT_TABLE.table, is_part)


def _shows_the_same(attribute: AttributeMap, other: AttributeMap) -> bool:
    """Whether two attributes of the same path show the same. A lookup may be for one of the types
    that a reference may lead to: the other one is empty then."""
    target = other.virtual_column.target
    has_target = target is None or target == attribute.virtual_column.target
    return other.kind is attribute.kind and (attribute.kind is not Kind.LOOKUP or has_target)


def _find_patient_candidates(
    entity_type: MappedEntityType, attribute: AttributeMap, written: Sequence[AttributeMap]
) -> Iterator[_Candidate]:
    lookup = find_patient_lookup(entity_type.entity)
    related = _BIRTH_DATE if attribute.kind is Kind.DATE else _FULL_NAME
    for other in written:
        if lookup is not None and other.path == lookup.path and other.kind is Kind.LOOKUP:
            yield _Candidate(other.column, related, _CONTACT)


def _split_union(path: str) -> list[str]:
    """Return the paths of `(a | b | c).first()`, or the path itself."""
    inner = path.removeprefix("(").removesuffix(").first()")
    if f"({inner}).first()" != path or inner.count("(") != inner.count(")"):
        return [path]
    return [path, *(part.strip() for part in inner.split(" | "))]


def _select(
    candidates: Sequence[_Candidate],
    property_: Property,
    attribute: AttributeMap | None,
    columns: Columns,
    related: Mapping[str, Columns],
) -> Iterator[PhysicalColumn]:
    """Yield the candidates that the table has, and that hold values of the property's type. Of a
    secured column it is not known whether a null is one."""
    is_day = attribute is not None and attribute.kind is Kind.DATE
    seen = list[_Candidate]()
    for candidate in candidates:
        if candidate in seen:
            continue
        seen.append(candidate)
        column = columns.get(candidate.column)
        if column is None or column.secured:
            continue
        shown = column
        if candidate.related is not None:
            if candidate.table not in column.targets:
                continue
            found = related.get(candidate.table, {}).get(candidate.related)
            if found is None or found.secured:
                continue
            shown = found
        if shown.type in _COLUMN_TYPES[property_.type]:
            yield PhysicalColumn(
                column=shown,
                lookup=None if candidate.related is None else column,
                navigation=None if candidate.related is None else column.targets[candidate.table],
                is_day=is_day,
                is_part=candidate.is_part,
            )


def _join_copies(found: Sequence[PhysicalColumn]) -> tuple[PhysicalColumn, ...]:
    """Take columns of the row that hold the same as one, and no parts beside a whole."""
    whole = [column for column in found if column.lookup is None and not column.is_part]
    if whole:
        return (replace(whole[0], copies=tuple(column.column for column in whole[1:])),)
    return tuple(found)


def _find_lookup_targets(
    entity_type: MappedEntityType, maps: Mapping[str, EntityMap]
) -> dict[str, EntityMap]:
    return {
        name: maps[target]
        for name, attribute in entity_type.attributes.items()
        if attribute.kind is Kind.LOOKUP
        and (target := attribute.virtual_column.target) is not None
        and target in maps
    }
