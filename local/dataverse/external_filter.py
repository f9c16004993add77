"""Write a parsed `$filter` as text again, with the property names of a virtual table's feed."""

from __future__ import annotations

from local.dataverse import refusals
from local.dataverse.conditions import LITERAL_KINDS, find_property
from local.dataverse.filters import Compare, Function, In, Literal, Logic, Name, Node, Not
from local.dataverse.tables import Column, Table


def render_filter(table: Table, node: Node) -> str:
    match node:
        case Logic(operator, left, right):
            return f"({render_filter(table, left)} {operator} {render_filter(table, right)})"
        case Not(inner):
            return f"not ({render_filter(table, inner)})"
        case Function(function, name, text):
            return f"{function}({_find_external_name(_find_column(table, name))},{_quote(text)})"
        case In(name, values):
            column = table.columns.get(name.name) or find_property(table, name.name)
            quoted = column.edm == "Edm.String"
            parts = (_quote(value) if quoted else value for value in values)
            return f"({' or '.join(f'{_find_external_name(column)} eq {part}' for part in parts)})"
        case Compare(operator, Name() as left, right):
            column = _find_column(table, left)
            return (
                f"{_find_external_name(column)} {operator} {_render_operand(table, column, right)}"
            )
    raise refusals.bad_query("The left side of a comparison in '$filter' must be a property.")


def _render_operand(table: Table, column: Column, right: Name | Literal) -> str:
    if isinstance(right, Name):
        return _find_external_name(_find_column(table, right))
    if right.kind not in ("null", *LITERAL_KINDS[column.edm]):
        raise refusals.bad_query(
            "A binary operator with incompatible types was detected. Found operand types "
            f"'{column.edm}' and '{right.kind}' for property '{column.property_name}'."
        )
    match right.kind:
        case "null":
            return "null"
        case "string":
            return _quote(right.value)
        case "bool":
            return str(right.value).lower()
        case "date":  # the feed has no dates, only date-times
            return f"{right.value}T00:00:00Z"
    return str(right.value)


def _find_column(table: Table, name: Name) -> Column:
    return find_property(table, name.name)


def _find_external_name(column: Column) -> str:
    if column.external is None:
        raise refusals.feed_failed()
    return column.external


def _quote(value: str) -> str:
    doubled = value.replace("'", "''")
    return f"'{doubled}'"
