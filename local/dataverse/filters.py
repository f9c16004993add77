"""`$filter`: text -> tree -> SQL with bound parameters.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from local.dataverse import refusals
from local.dataverse.addresses import guid
from local.dataverse.wire import Refusal

TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<string>'(?:[^']|'')*')"
    r"|(?P<listed>\"[^\"'\\]*\")"
    r"|(?P<guid>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
    r"|(?P<datetime>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2}))"
    r"|(?P<date>\d{4}-\d{2}-\d{2})"
    r"|(?P<number>-?\d+(?:\.\d+)?)"
    r"|(?P<enum>[A-Za-z_][\w.]*'(?:[^']|'')*')"
    r"|(?P<name>[A-Za-z_][\w./]*)"
    r"|(?P<mark>[(),=\[\]])"
    r")"
)
COMPARISONS = frozenset({"eq", "ne", "gt", "ge", "lt", "le"})
FUNCTIONS = frozenset({"contains", "startswith", "endswith"})
IN = "Microsoft.Dynamics.CRM.In"


@dataclass(frozen=True, slots=True)
class Literal:
    kind: str  # string, guid, datetime, date, number, bool, null
    value: Any


@dataclass(frozen=True, slots=True)
class Name:
    name: str


@dataclass(frozen=True, slots=True)
class Compare:
    operator: str
    left: Name | Literal
    right: Name | Literal


@dataclass(frozen=True, slots=True)
class Function:
    function: str
    name: Name
    text: str


@dataclass(frozen=True, slots=True)
class In:
    name: Name
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Logic:
    operator: str  # and, or
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Not:
    inner: Node


Node = Compare | Function | In | Logic | Not


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str


def parse(text: str) -> Node:
    parser = _Parser(_tokens(text))
    try:
        node = parser.either()
    except RecursionError as error:
        raise refusals.bad_query("The '$filter' is nested too deeply.") from error
    parser.end()
    return node


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = TOKEN.match(text, position)
        if match is None:
            raise _syntax(position)
        kind = match.lastgroup or ""
        tokens.append(Token(kind, match[kind]))
        position = match.end()
    return tokens


def _syntax(position: int) -> Refusal:
    return refusals.bad_query(f"Syntax error at position {position} in '$filter'.")


class _Parser:
    """Recursive descent: or, and, not, then a bracket, a function or a comparison."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._position = 0

    def either(self) -> Node:
        node = self._both()
        while self._word("or"):
            node = Logic("or", node, self._both())
        return node

    def end(self) -> None:
        if self._position < len(self._tokens):
            raise self._error()

    def _both(self) -> Node:
        node = self._single()
        while self._word("and"):
            node = Logic("and", node, self._single())
        return node

    def _single(self) -> Node:
        if self._word("not"):
            return Not(self._single())
        if self._mark("("):
            node = self.either()
            self._need(")")
            return node
        token = self._peek()
        if token.kind == "name" and token.text in FUNCTIONS:
            return self._function(self._take().text)
        if token.kind == "name" and token.text == IN:
            self._take()
            return self._in()
        if token.kind == "name" and token.text.startswith("Microsoft.Dynamics.CRM."):
            raise refusals.not_offered(f"the query function {token.text}")
        return self._comparison()

    def _comparison(self) -> Node:
        left = self._operand()
        operator = self._take()
        if operator.kind != "name" or operator.text not in COMPARISONS:
            raise self._error()
        return Compare(operator.text, left, self._operand())

    def _function(self, function: str) -> Node:
        self._need("(")
        name = self._name()
        self._need(",")
        text = self._string()
        self._need(")")
        return Function(function, name, text)

    def _in(self) -> Node:
        """`In(PropertyName='x',PropertyValues=['a','b'])`: every value is quoted, of any type.

        Microsoft's own Python client writes "a"; what an escape means in there, nobody says.
        """
        for mark in ("(", "PropertyName", "="):
            self._need(mark)
        name = Name(self._string())
        for mark in (",", "PropertyValues", "=", "["):
            self._need(mark)
        values = [self._listed()]
        while self._mark(","):
            values.append(self._listed())
        for mark in ("]", ")"):
            self._need(mark)
        return In(name, tuple(values))

    def _operand(self) -> Name | Literal:
        token = self._take()
        match token.kind:
            case "string":
                return Literal("string", _unquote(token.text))
            case "enum":
                return Literal("string", _unquote(token.text[token.text.index("'") :]))
            case "guid":
                return Literal("guid", guid(token.text))
            case "date" | "datetime":
                return Literal(token.kind, token.text)
            case "number":
                return Literal("number", _number(token.text))
            case "name" if token.text == "null":
                return Literal("null", None)
            case "name" if token.text in ("true", "false"):
                return Literal("bool", token.text == "true")
            case "name":
                return Name(token.text)
        raise self._error()

    def _name(self) -> Name:
        operand = self._operand()
        if isinstance(operand, Name):
            return operand
        raise self._error()

    def _string(self) -> str:
        token = self._take()
        if token.kind != "string":
            raise self._error()
        return _unquote(token.text)

    def _listed(self) -> str:
        return self._take().text[1:-1] if self._peek().kind == "listed" else self._string()

    def _peek(self) -> Token:
        if self._position >= len(self._tokens):
            raise self._error()
        return self._tokens[self._position]

    def _take(self) -> Token:
        token = self._peek()
        self._position += 1
        return token

    def _word(self, word: str) -> bool:
        return self._skip("name", word)

    def _mark(self, mark: str) -> bool:
        return self._skip("mark", mark)

    def _need(self, text: str) -> None:
        if not (self._mark(text) or self._word(text)):
            raise self._error()

    def _skip(self, kind: str, text: str) -> bool:
        found = self._tokens[self._position : self._position + 1] == [Token(kind, text)]
        self._position += found
        return found

    def _error(self) -> Refusal:
        return _syntax(self._position)


def _number(text: str) -> float:
    # Nineteen digits could leave the 64 bits of an SQL integer.
    return float(text) if "." in text or len(text) > 18 else int(text)


def _unquote(text: str) -> str:
    return text[1:-1].replace("''", "'")
