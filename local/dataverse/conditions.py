"""A parsed `$filter` becomes an SQL condition over the rows' documents, every value bound."""

from __future__ import annotations

from typing import Any

from local.dataverse import refusals
from local.dataverse.addresses import guid, is_guid
from local.dataverse.checks import stamp, stamp_of
from local.dataverse.filters import Compare, Function, In, Literal, Logic, Name, Node, Not
from local.dataverse.tables import Column, Table

Sql = tuple[str, list[Any]]

SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
EVERYTHING: Sql = ("1", [])

# Which literals OData lets meet which property type.
FITTING = {
    "Edm.String": {"string"},
    "Edm.Int32": {"number"},
    "Edm.Int64": {"number"},
    "Edm.Decimal": {"number"},
    "Edm.Double": {"number"},
    "Edm.Boolean": {"bool"},
    "Edm.Guid": {"guid"},
    "Edm.Date": {"date"},
    "Edm.DateTimeOffset": {"datetime", "date"},
    "Edm.Binary": set[str](),
}


def condition(table: Table, node: Node) -> Sql:
    match node:
        case Logic(operator, left, right):
            one, two = condition(table, left), condition(table, right)
            return f"({one[0]} {operator.upper()} {two[0]})", one[1] + two[1]
        case Not(inner):
            sql, parameters = condition(table, inner)
            return f"NOT ({sql})", parameters
        case Function(function, name, text):
            return _function(_column(table, name), function, text)
        case In(name, values):
            column = _named(table, name)
            literals = [_converted(column, value) for value in values]
            marks = ", ".join("?" for _ in literals)
            return f"COALESCE({path(column)} IN ({marks}), 0)", literals
        case Compare():
            return _compare(table, node)


def path(column: Column) -> str:
    """Where the property sits in the document. The name comes from a table, not from a caller."""
    place = f"json_extract(body, '$.\"{column.property_name}\"')"
    return f"fold({place})" if column.edm == "Edm.String" else place


def property_of(table: Table, name: str) -> Column:
    if "/" in name:
        raise refusals.not_offered("conditions on the columns of related rows")
    if name not in table.properties:
        raise refusals.no_property(name, table.name)
    return table.properties[name]


def _column(table: Table, name: Name) -> Column:
    return property_of(table, name.name)


def _named(table: Table, name: Name) -> Column:
    """The `In` function takes the column's name, also for a lookup."""
    return table.columns.get(name.name) or property_of(table, name.name)


def _compare(table: Table, node: Compare) -> Sql:
    left, right = node.left, node.right
    if isinstance(left, Literal):
        raise refusals.bad_query("The left side of a comparison in '$filter' must be a property.")
    column = _column(table, left)
    if isinstance(right, Name):
        other = _column(table, right)
        return _signed(node.operator, path(column), path(other)), []
    if right.kind == "null":
        if node.operator not in ("eq", "ne"):
            raise refusals.bad_query("null can only be compared with eq and ne.")
        return f"{path(column)} IS {'NOT ' if node.operator == 'ne' else ''}NULL", []
    if node.operator == "eq":
        # Never null, as the one below; and unlike that one it can be looked up in an index.
        return f"{path(column)} IS ?", [_bound(column, right)]
    return _signed(node.operator, path(column), "?"), [_bound(column, right)]


def _signed(operator: str, left: str, right: str) -> str:
    """`ne` also finds rows without a value, and `not` is the exact complement."""
    if operator == "eq":
        return f"COALESCE({left} = {right}, 0)"
    if operator == "ne":
        return f"NOT COALESCE({left} = {right}, 0)"
    return f"COALESCE({left} {SIGNS[operator]} {right}, 0)"


def _bound(column: Column, literal: Literal) -> Any:
    if literal.kind not in FITTING[column.edm]:
        raise refusals.bad_query(
            "A binary operator with incompatible types was detected. Found operand types "
            f"'{column.edm}' and '{literal.kind}' for property '{column.property_name}'."
        )
    return _stored(column, literal.value)


def _converted(column: Column, text: str) -> Any:
    try:
        if column.edm in ("Edm.Int32", "Edm.Int64"):
            return int(text)
        if column.edm in ("Edm.Decimal", "Edm.Double"):
            return float(text)
        return _stored(column, text)
    except ValueError as error:
        raise refusals.bad_query(
            f"A value of '{column.property_name}' does not have the type '{column.edm}'."
        ) from error


def _stored(column: Column, value: Any) -> Any:
    """The literal in the form in which rows keep such a value."""
    if column.edm == "Edm.String":
        return value.casefold()
    if column.edm == "Edm.Guid":
        if not is_guid(value):
            raise refusals.bad_query(f"'{column.property_name}' is compared with a GUID only.")
        return guid(value)
    if column.edm == "Edm.DateTimeOffset":
        try:
            return stamp(stamp_of(value if "T" in value else f"{value}T00:00:00Z"))
        except (ValueError, OverflowError) as error:
            raise refusals.bad_query("A date in '$filter' is not a date.") from error
    return value


def _function(column: Column, function: str, text: str) -> Sql:
    if column.edm != "Edm.String":
        raise refusals.bad_query(
            f"No function signature for the function '{function}' matches '{column.edm}'."
        )
    value, place = text.casefold(), path(column)
    if function == "contains":
        return f"COALESCE(instr({place}, ?) > 0, 0)", [value]
    if function == "startswith":
        return f"COALESCE(substr({place}, 1, length(?)) = ?, 0)", [value, value]
    return (
        f"COALESCE(length({place}) >= length(?) AND substr({place}, -length(?)) = ?, 0)",
        [value, value, value],
    )
