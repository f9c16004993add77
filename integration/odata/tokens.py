"""The words of a filter, each with its place. Pure.

https://docs.oasis-open.org/odata/odata/v4.01/os/abnf/odata-abnf-construction-rules.txt
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from integration.core.errors import Rejected
from integration.odata import literals
from integration.odata.model import Value
from integration.odata.refusals import BadRequest, NotSupported

OPTION = "$filter"

_TOKEN = re.compile(
    rf"(?P<space>[ \t]+)|(?P<string>{literals.STRING})"
    rf"|(?P<guid>{literals.GUID})(?![\w\-])|(?P<moment>{literals.DATETIME})(?![\w:.])"
    rf"|(?P<date>{literals.DATE})(?![\w\-:.])|(?P<number>{literals.NUMBER})(?![\w.\-:])"
    r"|(?P<word>[^\W\d][\w.]*+)(?!')|(?P<variable>[$@]\w+)|(?P<mark>[(),/:])"
)
LITERALS: dict[str, Callable[[str], Value]] = {
    "string": literals.parse_string,
    "guid": literals.parse_guid,
    "moment": literals.parse_datetime,
    "date": literals.parse_date,
    "number": literals.parse_number,
}


@dataclass(frozen=True, slots=True)
class Token:
    """`at` counts characters from 1."""

    kind: str
    text: str
    position: int


def tokenize(text: str) -> list[Token]:
    """The last one is the end. Raises Rejected."""
    tokens = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise FilterSyntaxError("something that is no part of a filter", at + 1)
        if match.lastgroup != "space":
            tokens.append(Token(match.lastgroup or "", match[0], at + 1))
        at = match.end()
    return [*tokens, Token("end", "", len(text) + 1)]


def parse_literal(token: Token) -> Value:
    try:
        return LITERALS[token.kind](token.text)
    except ValueError:
        raise FilterSyntaxError(f"a {token.kind} that does not exist", token.position) from None


def FilterSyntaxError(text: str, position: int) -> Rejected:
    return BadRequest(f"{OPTION}, position {position}: {text}", OPTION)


def FilterNotSupported(text: str, position: int) -> Rejected:
    """Defined by OData, and not built."""
    return NotSupported(f"{OPTION}, position {position}: {text}", OPTION)
