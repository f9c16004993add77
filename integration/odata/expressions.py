"""The conditions of $filter, typed: every property exists, every comparison is allowed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from integration.odata.model import Property, Value

Operator = Literal["eq", "ne", "lt", "le", "gt", "ge"]
Function = Literal["contains", "startswith", "endswith"]


@dataclass(frozen=True, slots=True)
class Field:
    """The value of a property; `case`: as tolower or toupper change it."""

    property: Property
    case: Literal["as is", "lower", "upper"] = "as is"


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: Value


Operand = Field | Constant


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison. A constant is always the right operand. True or false, with null too."""

    operator: Operator
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class In:
    """Equal to one of the values, of which null may be one. True or false."""

    operand: Operand
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a text has a part; null where the text or the part is null."""

    function: Function
    text: Operand
    part: Operand


@dataclass(frozen=True, slots=True)
class Truth:
    """A Boolean property or literal that is a condition by itself."""

    operand: Operand


@dataclass(frozen=True, slots=True)
class Is:
    """A condition compared with true, false or null. True or false."""

    part: Expression
    value: bool | None


@dataclass(frozen=True, slots=True)
class Not:
    part: Expression


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Expression, ...]


Expression = Compare | In | Match | Truth | Is | Not | And | Or


@dataclass(frozen=True, slots=True)
class Order:
    """One item of $orderby."""

    property: Property
    descending: bool = False
