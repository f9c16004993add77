"""A parsed `$filter` becomes text again, in the names of a virtual table's feed."""

from __future__ import annotations

from local.dataverse import refusals
from local.dataverse.conditions import FITTING, property_of
from local.dataverse.filters import Compare, Function, In, Literal, Logic, Name, Node, Not
from local.dataverse.tables import Column, Table


def rendered(table: Table, node: Node) -> str:
    match node:
        case Logic(operator, left, right):
            return f"({rendered(table, left)} {operator} {rendered(table, right)})"
        case Not(inner):
            return f"not ({rendered(table, inner)})"
        case Function(function, name, text):
            return f"{function}({_name(_column(table, name))},{_text(text)})"
        case In(name, values):
            column = table.columns.get(name.name) or property_of(table, name.name)
            quoted = column.edm == "Edm.String"
            parts = (_text(value) if quoted else value for value in values)
            return f"({' or '.join(f'{_name(column)} eq {part}' for part in parts)})"
        case Compare(operator, Name() as left, right):
            column = _column(table, left)
            return f"{_name(column)} {operator} {_operand(table, column, right)}"
    raise refusals.bad_query("The left side of a comparison in '$filter' must be a property.")


def _operand(table: Table, column: Column, right: Name | Literal) -> str:
    if isinstance(right, Name):
        return _name(_column(table, right))
    if right.kind not in ("null", *FITTING[column.edm]):
        raise refusals.bad_query(
            "A binary operator with incompatible types was detected. Found operand types "
            f"'{column.edm}' and '{right.kind}' for property '{column.property_name}'."
        )
    match right.kind:
        case "null":
            return "null"
        case "string":
            return _text(right.value)
        case "bool":
            return str(right.value).lower()
        case "date":  # the feed has moments only
            return f"{right.value}T00:00:00Z"
    return str(right.value)


def _column(table: Table, name: Name) -> Column:
    return property_of(table, name.name)


def _name(column: Column) -> str:
    if column.external is None:
        raise refusals.feed_failed()
    return column.external


def _text(value: str) -> str:
    doubled = value.replace("'", "''")
    return f"'{doubled}'"
