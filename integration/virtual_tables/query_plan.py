"""How the rows that a query asks for are read from FHIR: one plan for each request. Pure.

split_filter   the parts of a $filter, with the properties and keys that each names
plan_query     what FHIR searches for and sorts by, and what is left to evaluate here

Between the two the caller resolves the keys to the ids of resources, which takes I/O.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from integration.fhir.search import Parameters, build_path
from integration.mapping.model import Kind
from integration.mapping.patient_columns import find_include
from integration.odata.expressions import (
    And,
    Compare,
    Constant,
    Expression,
    Field,
    In,
    Match,
    Operand,
    Or,
    Order,
    Truth,
)
from integration.odata.model import Value
from integration.odata.query import Query
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.pushdown import NOT_SEARCHABLE, TargetIds, build_search

# Characters of a search. Servers take requests whose first line has 8 KB:
# https://learn.microsoft.com/dotnet/api/microsoft.aspnetcore.server.kestrel.core.kestrelserverlimits.maxrequestlinesize
_MAX_LENGTH = 6000

# Days that are shown for moments in reverse order, at most: time zones are 26 hours apart.
_DAYS_APART = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class FilterPart:
    """One of the conditions that must all hold. `keys`: the GUIDs that it compares a property
    with."""

    condition: Expression
    properties: frozenset[str]
    keys: frozenset[tuple[str, UUID]]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryPlan:
    """How the rows of a query are read.

    `is_exact`: the search finds the rows that satisfy the filter and no others. `is_empty`: no row
    can satisfy it. `is_gathered`: everything that the search finds must be read before the first
    row is known. `sort`: the value of FHIR's _sort for the order of the query, if there is one;
    `slack`: how far a row may stand before or behind the place that its column gives it.
    `include`: the value of FHIR's _include that brings the patients, where columns show them.
    `unsearched`: the properties of the filter for which FHIR has no exact search.
    `scanned_type` has the properties that are needed to choose rows, `shown_type` those of $select.
    """

    query: Query
    parameters: Parameters
    is_exact: bool
    is_empty: bool
    is_gathered: bool
    sort: str | None
    slack: timedelta
    include: str | None
    unsearched: tuple[str, ...]
    scanned_type: MappedEntityType
    shown_type: MappedEntityType

    @property
    def cost_reasons(self) -> list[str]:
        """Return what makes the query look at more resources than it returns rows."""
        orders = [f"$orderby by {order.property.name}" for order in self.query.order_by]
        return list(self.unsearched) or (orders if self.is_exact else []) or ["$filter"]

    @property
    def cost_target(self) -> str:
        """Return the option that does."""
        return "$orderby" if self.is_exact and self.query.order_by else "$filter"

    @property
    def listing(self) -> Hashable:
        """Return what the rows and their order depend on, whatever part of them is asked for."""
        query = self.query
        found = self.scanned_type.resource, self.parameters, self.sort
        return *found, query.filter, query.order_by


def split_filter(condition: Expression | None) -> tuple[FilterPart, ...]:
    """Split a filter into the parts that must all hold."""
    match condition:
        case None:
            return ()
        case And(conditions):
            return tuple(_describe_part(part) for part in conditions)
    return (_describe_part(condition),)


def plan_query(
    query: Query,
    parts: Iterable[FilterPart],
    entity_type: MappedEntityType,
    target_ids: TargetIds,
) -> QueryPlan:
    """Plan how to read the rows that `query` asks for.

    `parts` are those of its filter; `target_ids` has each of their keys.
    """
    parameters: dict[tuple[str, str], None] = {}
    filtered: set[str] = set()
    unsearched: set[str] = set()
    is_exact, is_empty = True, False
    for part in parts:
        search = build_search(part.condition, entity_type, target_ids)
        if len(build_path("", (*parameters, *search.parameters))) > _MAX_LENGTH:
            search = NOT_SEARCHABLE
        parameters |= dict.fromkeys(search.parameters)
        filtered |= part.properties
        is_empty = is_empty or search.is_empty
        if not search.is_exact:
            is_exact = False
            unsearched |= part.properties
    sort = _build_sort(query.order_by, entity_type)
    is_gathered = bool(query.order_by and sort is None) or (query.count and not is_exact)
    selected = None if query.select is None else {property_.name for property_ in query.select}
    ordered = {order.property.name for order in query.order_by}
    if is_gathered:
        scanned: set[str] | None = filtered | ordered
    elif is_exact:
        # Nearly every resource that is found is shown, so each is mapped once, as it is shown.
        scanned = None if selected is None else filtered | selected | ordered
    else:
        scanned = filtered | ordered
    scanned_type, shown_type = entity_type.select(scanned), entity_type.select(selected)
    has_patient = scanned_type.patient is not None or shown_type.patient is not None
    return QueryPlan(
        query=query,
        parameters=tuple(parameters),
        is_exact=is_exact,
        is_empty=is_empty,
        is_gathered=is_gathered,
        sort=sort,
        slack=_find_slack(query.order_by, entity_type),
        include=find_include(entity_type.entity) if has_patient else None,
        unsearched=tuple(sorted(unsearched)),
        scanned_type=scanned_type,
        shown_type=shown_type,
    )


def _build_sort(orders: tuple[Order, ...], entity_type: MappedEntityType) -> str | None:
    """Build the value of _sort that puts rows into this order; without an order, the newest first.
    None: there is none."""
    if not orders and entity_type.entity.newest_by is not None:
        return f"-{entity_type.entity.newest_by}"
    if len(orders) != 1:
        return None
    (order,) = orders
    if order.property.name == entity_type.entity.updated_column:
        name = "_lastUpdated"
    else:
        attribute = entity_type.attributes.get(order.property.name)
        search = attribute.virtual_column.search if attribute else None
        if search is None or not search.sorts:
            return None
        name = search.name
    return f"-{name}" if order.descending else name


def _find_slack(orders: tuple[Order, ...], entity_type: MappedEntityType) -> timedelta:
    """FHIR sorts by moments. A column of days shows the day of the place where it was written, so
    that rows of other time zones may change places with those of the days around it."""
    attributes = (entity_type.attributes.get(order.property.name) for order in orders)
    has_days = any(attribute and attribute.kind is Kind.DATE for attribute in attributes)
    return _DAYS_APART if has_days else timedelta()


def _describe_part(condition: Expression) -> FilterPart:
    comparisons = list(_list_comparisons(condition))
    return FilterPart(
        condition,
        frozenset(name for name, _ in comparisons),
        frozenset(
            (name, value)
            for name, values in comparisons
            for value in values
            if isinstance(value, UUID)
        ),
    )


def _list_comparisons(condition: Expression) -> Iterator[tuple[str, tuple[Value, ...]]]:
    """Yield each property of a condition with the values that it is compared with."""
    match condition:
        case And(conditions) | Or(conditions):
            for part in conditions:
                yield from _list_comparisons(part)
        case In(operand, values):
            yield from _pair(operand, values)
        case Compare(_, left, right):
            yield from _pair(left, _list_constants(right))
            yield from _pair(right, _list_constants(left))
        case Match(_, text, part):
            yield from _pair(text, ())
            yield from _pair(part, ())
        case Truth(operand):
            yield from _pair(operand, ())
        case _:  # Not, Is
            yield from _list_comparisons(condition.part)


def _pair(operand: Operand, values: tuple[Value, ...]) -> Iterator[tuple[str, tuple[Value, ...]]]:
    if isinstance(operand, Field):
        yield operand.property.name, values


def _list_constants(operand: Operand) -> tuple[Value, ...]:
    return (operand.value,) if isinstance(operand, Constant) else ()
