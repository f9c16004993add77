"""Parses the FHIRPath that maps use most, fifty times as fast as fhirpathpy's own parser. Pure.

A worker parses hundreds of paths before its first answer. The tree is the one that fhirpathpy's
evaluator expects. What is not known here, such as quantities, dates, types, comments and mistakes,
is left to `parser`, which also says what is wrong with a path.

The grammar: https://hl7.org/fhirpath/N1/grammar.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Node = dict[str, Any]

_TOKEN = re.compile(
    r"[ \r\n\t]*(?:"
    r"([A-Za-z_][A-Za-z0-9_]*)"  # an identifier or a word of the grammar
    r"|([0-9]+(?:\.[0-9]+)?)"  # a number
    r"|('[^'\\]*')"  # text without escapes
    r"|(\$this|!=|<=|>=|[.()\[\],|=~<>+*/&%{}-]))",
    re.ASCII,
)

# Words of the grammar. Some of them may name an element, too; that is left to `parser`.
_WORDS = frozenset(
    "and or xor implies in contains is as div mod true false "
    "year month week day hour minute second millisecond "
    "years months weeks days hours minutes seconds milliseconds".split()
)
# Those that name a function after a dot.
_FUNCTION_WORDS = frozenset({"contains", "as", "is", "in"})

# Operators of two operands, the loosest first: all of them group from the left.
_LEVELS = (
    ("ImpliesExpression", ("implies",)),
    ("OrExpression", ("or", "xor")),
    ("AndExpression", ("and",)),
    ("MembershipExpression", ("in", "contains")),
    ("EqualityExpression", ("=", "~", "!=")),
    ("InequalityExpression", ("<=", "<", ">", ">=")),
    ("UnionExpression", ("|",)),
    ("AdditiveExpression", ("+", "-", "&")),
    ("MultiplicativeExpression", ("*", "/", "div", "mod")),
)
_OPERATORS = {
    operator: (level, type_)
    for level, (type_, operators) in enumerate(_LEVELS)
    for operator in operators
}


class UnknownText(Exception):
    """Only fhirpathpy's own parser can parse the path, or say what is wrong with it."""


@dataclass(slots=True)
class _Reader:
    """The tokens of a path, and where the next one stands."""

    tokens: list[str]
    position: int = 0

    @property
    def next(self) -> str:
        return self.tokens[self.position]

    def skip(self, expected: str | None = None) -> str:
        """Go on behind the next token. Raises UnknownText where it is not the expected one."""
        symbol = self.tokens[self.position]
        if expected is not None and symbol != expected:
            raise UnknownText
        self.position += 1
        return symbol

    def get_text(self, start: int) -> str:
        """Return the text from a token to the next one, without blanks."""
        return "".join(self.tokens[start : self.position])


def parse_quickly(path: str) -> Node:
    """Return the tree of a path's expression. Raises UnknownText."""
    reader = _Reader(_split_tokens(path))
    tree = _parse_expression(reader, 0)
    reader.skip("")
    return tree


def _parse_expression(reader: _Reader, lowest: int) -> Node:
    """Parse up to the first operator that is looser than `lowest`."""
    start = reader.position
    left = _parse_term(reader)
    while True:
        symbol = reader.next
        if symbol == ".":
            reader.skip()
            left = _build("InvocationExpression", ["."], left, _parse_invocation(reader))
            left["text"] = reader.get_text(start)
        elif symbol == "[":
            reader.skip()
            left = _build("IndexerExpression", ["[", "]"], left, _parse_expression(reader, 0))
            reader.skip("]")
        elif symbol in _OPERATORS and _OPERATORS[symbol][0] >= lowest:
            level, type_ = _OPERATORS[reader.skip()]
            left = _build(type_, [symbol], left, _parse_expression(reader, level + 1))
        else:
            return left


def _parse_term(reader: _Reader) -> Node:
    start = reader.position
    inner = _parse_term_inside(reader)
    text = reader.get_text(start)
    if inner["type"] == "LiteralTerm":
        inner["text"] = inner["children"][0]["text"] = text
    term = _build("TermExpression", [], inner)
    term["text"] = text
    return term


def _parse_term_inside(reader: _Reader) -> Node:
    symbol = reader.next
    if symbol == "(":
        reader.skip()
        inner = _build("ParenthesizedTerm", ["(", ")"], _parse_expression(reader, 0))
        reader.skip(")")
        return inner
    if symbol == "%":
        reader.skip()
        constant = _build("ExternalConstant", ["%"], _parse_name(reader))
        return _build("ExternalConstantTerm", [], constant)
    if symbol == "{":
        reader.skip()
        reader.skip("}")
        return _build("LiteralTerm", [], _build("NullLiteral", ["{", "}"]))
    if (literal := _find_literal(symbol)) is not None:
        reader.skip()
        if literal == "NumberLiteral" and _is_unit(reader.next):
            raise UnknownText  # a quantity
        return _build("LiteralTerm", [], _build(literal, [symbol]))
    if symbol in _WORDS:
        raise UnknownText
    return _build("InvocationTerm", [], _parse_invocation(reader))


def _parse_invocation(reader: _Reader) -> Node:
    """Parse an element, or the call of a function."""
    if reader.next == "$this":
        return _build("ThisInvocation", [reader.skip()])
    is_call = reader.tokens[reader.position + 1] == "("
    name = _parse_name(reader, _FUNCTION_WORDS if is_call else frozenset())
    if not is_call:
        return _build("MemberInvocation", [], name)
    reader.skip("(")
    arguments: list[Node] = []
    while reader.next != ")":
        if arguments:
            reader.skip(",")
        arguments.append(_parse_expression(reader, 0))
    reader.skip(")")
    parts = [name]
    if arguments:
        parts.append(_build("ParamList", [","] * (len(arguments) - 1), *arguments))
    return _build("FunctionInvocation", [], _build("Functn", ["(", ")"], *parts))


def _parse_name(reader: _Reader, allowed: frozenset[str] = frozenset()) -> Node:
    name = reader.next
    if not name.isidentifier() or (name in _WORDS and name not in allowed):
        raise UnknownText
    node = _build("Identifier", [reader.skip()])
    node["text"] = name
    return node


def _split_tokens(path: str) -> list[str]:
    """Return the tokens, and empty ones behind the last: what is next is looked at everywhere."""
    tokens: list[str] = []
    place, end = 0, len(path.rstrip(" \r\n\t"))
    while place < end:
        found = _TOKEN.match(path, place)
        if found is None:
            raise UnknownText
        symbol = found[found.lastindex or 0]
        if symbol in ("/", "*") and tokens[-1:] == ["/"]:
            raise UnknownText  # a comment
        tokens.append(symbol)
        place = found.end()
    return [*tokens, "", ""]


def _find_literal(symbol: str) -> str | None:
    if symbol in ("true", "false"):
        return "BooleanLiteral"
    if symbol[:1] == "'":
        return "StringLiteral"
    return "NumberLiteral" if symbol[:1].isdigit() else None


def _is_unit(symbol: str) -> bool:
    return symbol[:1] == "'" or (symbol.isidentifier() and symbol not in _OPERATORS)


def _build(type_: str, terminals: list[str], *children: Node) -> Node:
    node: Node = {"type": type_, "terminalNodeText": terminals}
    if children:
        node["children"] = list(children)
    return node
