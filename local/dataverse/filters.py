"""Parse `$filter` to a tree.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/filter-rows
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from local.dataverse import refusals
from local.dataverse.addresses import normalize_guid
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


# https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/reference/condition
_MAX_CONDITIONS = 500


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str


def parse(text: str) -> Node:
    parser = _Parser(_tokenize(text))
    try:
        node = parser.parse_or()
    except RecursionError as error:
        raise refusals.bad_query("The '$filter' is nested too deeply.") from error
    parser.expect_end()
    if _count_conditions(node) > _MAX_CONDITIONS:
        raise refusals.bad_query("Number of conditions in query exceeded maximum limit.")
    return node


def _count_conditions(node: Node) -> int:
    match node:
        case Logic():
            return _count_conditions(node.left) + _count_conditions(node.right)
        case Not():
            return _count_conditions(node.inner)
    return 1


def _tokenize(text: str) -> list[Token]:
    tokens: list[Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = TOKEN.match(text, position)
        if match is None:
            raise _build_syntax_error(position)
        kind = match.lastgroup or ""
        tokens.append(Token(kind, match[kind]))
        position = match.end()
    return tokens


def _build_syntax_error(position: int) -> Refusal:
    return refusals.bad_query(f"Syntax error at position {position} in '$filter'.")


class _Parser:
    """Recursive descent: or, and, not, then brackets, a function or a comparison."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._position = 0

    def parse_or(self) -> Node:
        node = self._parse_and()
        while self._skip_word("or"):
            node = Logic("or", node, self._parse_and())
        return node

    def expect_end(self) -> None:
        if self._position < len(self._tokens):
            raise self._build_error()

    def _parse_and(self) -> Node:
        node = self._parse_term()
        while self._skip_word("and"):
            node = Logic("and", node, self._parse_term())
        return node

    def _parse_term(self) -> Node:
        if self._skip_word("not"):
            return Not(self._parse_term())
        if self._skip_punctuation("("):
            node = self.parse_or()
            self._expect(")")
            return node
        token = self._peek()
        if token.kind == "name" and token.text in FUNCTIONS:
            return self._parse_function(self._take().text)
        if token.kind == "name" and token.text == IN:
            self._take()
            return self._parse_in()
        if token.kind == "name" and token.text.startswith("Microsoft.Dynamics.CRM."):
            raise refusals.not_offered(f"the query function {token.text}")
        return self._parse_comparison()

    def _parse_comparison(self) -> Node:
        left = self._parse_operand()
        operator = self._take()
        if operator.kind != "name" or operator.text not in COMPARISONS:
            raise self._build_error()
        return Compare(operator.text, left, self._parse_operand())

    def _parse_function(self, function: str) -> Node:
        self._expect("(")
        name = self._parse_name()
        self._expect(",")
        text = self._parse_string()
        self._expect(")")
        return Function(function, name, text)

    def _parse_in(self) -> Node:
        """Parse `In(PropertyName='x',PropertyValues=['a','b'])`: values of all types are quoted.

        Microsoft's own Python client writes "a"; how quotes are escaped there is not documented.
        """
        for text in ("(", "PropertyName", "="):
            self._expect(text)
        name = Name(self._parse_string())
        for text in (",", "PropertyValues", "=", "["):
            self._expect(text)
        values = [self._parse_listed()]
        while self._skip_punctuation(","):
            values.append(self._parse_listed())
        for text in ("]", ")"):
            self._expect(text)
        return In(name, tuple(values))

    def _parse_operand(self) -> Name | Literal:
        token = self._take()
        match token.kind:
            case "string":
                return Literal("string", _unquote(token.text))
            case "enum":
                return Literal("string", _unquote(token.text[token.text.index("'") :]))
            case "guid":
                return Literal("guid", normalize_guid(token.text))
            case "date" | "datetime":
                return Literal(token.kind, token.text)
            case "number":
                return Literal("number", _parse_number(token.text))
            case "name" if token.text == "null":
                return Literal("null", None)
            case "name" if token.text in ("true", "false"):
                return Literal("bool", token.text == "true")
            case "name":
                return Name(token.text)
        raise self._build_error()

    def _parse_name(self) -> Name:
        operand = self._parse_operand()
        if isinstance(operand, Name):
            return operand
        raise self._build_error()

    def _parse_string(self) -> str:
        token = self._take()
        if token.kind != "string":
            raise self._build_error()
        return _unquote(token.text)

    def _parse_listed(self) -> str:
        return self._take().text[1:-1] if self._peek().kind == "listed" else self._parse_string()

    def _peek(self) -> Token:
        if self._position >= len(self._tokens):
            raise self._build_error()
        return self._tokens[self._position]

    def _take(self) -> Token:
        token = self._peek()
        self._position += 1
        return token

    def _skip_word(self, word: str) -> bool:
        return self._skip("name", word)

    def _skip_punctuation(self, text: str) -> bool:
        return self._skip("mark", text)

    def _expect(self, text: str) -> None:
        if not (self._skip_punctuation(text) or self._skip_word(text)):
            raise self._build_error()

    def _skip(self, kind: str, text: str) -> bool:
        found = self._tokens[self._position : self._position + 1] == [Token(kind, text)]
        self._position += found
        return found

    def _build_error(self) -> Refusal:
        return _build_syntax_error(self._position)


def _parse_number(text: str) -> float:
    # Nineteen digits could leave the 64 bits of an SQL integer.
    return float(text) if "." in text or len(text) > 18 else int(text)


def _unquote(text: str) -> str:
    return text[1:-1].replace("''", "'")
