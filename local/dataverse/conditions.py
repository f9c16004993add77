"""Compile a parsed `$filter` to an SQL condition over the rows' documents; values are bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from local.dataverse import refusals
from local.dataverse.addresses import is_guid, normalize_guid
from local.dataverse.checks import format_instant, parse_instant
from local.dataverse.filters import Compare, Function, In, Literal, Logic, Name, Node, Not
from local.dataverse.tables import Catalog, Column, Table

Sql = tuple[str, list[Any]]

OPERATORS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
EVERYTHING: Sql = ("1", [])

# The kinds of literals that can be compared with each property type.
LITERAL_KINDS = {
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


def compile_condition(catalog: Catalog, table: Table, node: Node) -> Sql:
    match node:
        case Logic(operator):
            # One pair of parentheses for a whole chain: SQLite's parser has a stack of a hundred.
            parts = [
                compile_condition(catalog, table, part) for part in _list_parts(node, operator)
            ]
            joined = f" {operator.upper()} ".join(sql for sql, _ in parts)
            return f"({joined})", [value for _, values in parts for value in values]
        case Not(inner):
            sql, parameters = compile_condition(catalog, table, inner)
            return f"NOT ({sql})", parameters
        case Function(function, name, text):
            return _compile_function(_locate(catalog, table, name), function, text)
        case In(name, values):
            column = _find_in_column(table, name)
            literals = [_convert_text(column, value) for value in values]
            placeholders = ", ".join("?" for _ in literals)
            path = build_path(column)
            # Never null, and unlike a COALESCE of it this can use an index.
            return f"({path} IN ({placeholders}) AND {path} IS NOT NULL)", literals
        case Compare():
            return _compile_comparison(catalog, table, node)


def _list_parts(node: Node, operator: str) -> list[Node]:
    """List what a chain of one operator joins."""
    if isinstance(node, Logic) and node.operator == operator:
        return [*_list_parts(node.left, operator), *_list_parts(node.right, operator)]
    return [node]


@dataclass(frozen=True, slots=True)
class _Located:
    """A column, and the SQL expression of its value."""

    column: Column
    path: str


def build_path(column: Column, body: str = "body") -> str:
    """Return the SQL expression of the property. Its name comes from the table, not the caller."""
    expression = f"json_extract({body}, '$.\"{column.property_name}\"')"
    return f"fold({expression})" if column.edm == "Edm.String" else expression


def _locate(catalog: Catalog, table: Table, name: Name) -> _Located:
    """Find a column of the table, or as `navigation/column` of the row that a lookup leads to.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows#filter-rows-based-on-related-records
    """
    navigation, _, inner = name.name.partition("/")
    if not inner:
        column = find_property(table, name.name)
        return _Located(column, build_path(column))
    if navigation not in table.navigations or "/" in inner:
        raise refusals.no_property(navigation, table.name)
    lookup, target = table.navigations[navigation]
    if target not in catalog.by_name:
        raise refusals.not_offered(f"conditions on {target}, which the stand-in lacks")
    column = find_property(catalog.by_name[target], inner)
    # The names are those of tables and columns, and values are bound.
    related = (
        f"(SELECT {build_path(column, 'other.body')} FROM rows AS other "  # noqa: S608
        f"WHERE other.tbl = '{target}' AND other.id = {build_path(lookup, 'rows.body')})"
    )
    return _Located(column, related)


def find_property(table: Table, name: str) -> Column:
    if "/" in name:
        raise refusals.not_offered("conditions on the columns of related rows")
    if name not in table.properties:
        raise refusals.no_property(name, table.name)
    return table.properties[name]


def _find_in_column(table: Table, name: Name) -> Column:
    """Find the column of an `In` function, which takes the column's name even for a lookup."""
    return table.columns.get(name.name) or find_property(table, name.name)


def _compile_comparison(catalog: Catalog, table: Table, node: Compare) -> Sql:
    left, right = node.left, node.right
    if isinstance(left, Literal):
        raise refusals.bad_query("The left side of a comparison in '$filter' must be a property.")
    located = _locate(catalog, table, left)
    if isinstance(right, Name):
        other = _locate(catalog, table, right)
        return _format_comparison(node.operator, located.path, other.path), []
    if right.kind == "null":
        if node.operator not in ("eq", "ne"):
            raise refusals.bad_query("null can only be compared with eq and ne.")
        return f"{located.path} IS {'NOT ' if node.operator == 'ne' else ''}NULL", []
    value = _bind_literal(located.column, right)
    if node.operator == "eq":
        # Never null, like the comparison below, but unlike it this can use an index.
        return f"{located.path} IS ?", [value]
    return _format_comparison(node.operator, located.path, "?"), [value]


def _format_comparison(operator: str, left: str, right: str) -> str:
    """Format a comparison. `ne` also matches rows without a value; `not` is the complement."""
    if operator == "eq":
        return f"COALESCE({left} = {right}, 0)"
    if operator == "ne":
        return f"NOT COALESCE({left} = {right}, 0)"
    return f"COALESCE({left} {OPERATORS[operator]} {right}, 0)"


def _bind_literal(column: Column, literal: Literal) -> Any:
    if literal.kind not in LITERAL_KINDS[column.edm]:
        raise refusals.bad_query(
            "A binary operator with incompatible types was detected. Found operand types "
            f"'{column.edm}' and '{literal.kind}' for property '{column.property_name}'."
        )
    return _encode_value(column, literal.value)


def _convert_text(column: Column, text: str) -> Any:
    try:
        if column.edm in ("Edm.Int32", "Edm.Int64"):
            return int(text)
        if column.edm in ("Edm.Decimal", "Edm.Double"):
            return float(text)
        return _encode_value(column, text)
    except ValueError as error:
        raise refusals.bad_query(
            f"A value of '{column.property_name}' does not have the type '{column.edm}'."
        ) from error


def _encode_value(column: Column, value: Any) -> Any:
    """Return the value in the form in which rows store it."""
    if column.edm == "Edm.String":
        return value.casefold()
    if column.edm == "Edm.Guid":
        if not is_guid(value):
            raise refusals.bad_query(f"'{column.property_name}' is compared with a GUID only.")
        return normalize_guid(value)
    if column.edm == "Edm.DateTimeOffset":
        try:
            return format_instant(parse_instant(value if "T" in value else f"{value}T00:00:00Z"))
        except (ValueError, OverflowError) as error:
            raise refusals.bad_query("A date in '$filter' is not a date.") from error
    return value


def _compile_function(located: _Located, function: str, text: str) -> Sql:
    column = located.column
    if column.edm != "Edm.String":
        raise refusals.bad_query(
            f"No function signature for the function '{function}' matches '{column.edm}'."
        )
    value, expression = text.casefold(), located.path
    if function == "contains":
        return f"COALESCE(instr({expression}, ?) > 0, 0)", [value]
    if function == "startswith":
        return f"COALESCE(substr({expression}, 1, length(?)) = ?, 0)", [value, value]
    return (
        f"COALESCE(length({expression}) >= length(?) AND substr({expression}, -length(?)) = ?, 0)",
        [value, value, value],
    )
