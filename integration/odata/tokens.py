"""Split a filter into tokens, each with its position. Pure.

https://docs.oasis-open.org/odata/odata/v4.01/os/abnf/odata-abnf-construction-rules.txt
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from integration.odata import literals
from integration.odata.model import Value
from integration.odata.refusals import BadRequest, NotSupported

OPTION = "$filter"

_TOKEN = re.compile(
    rf"(?P<space>[ \t]+)|(?P<string>{literals.STRING})"
    rf"|(?P<guid>{literals.GUID})(?![\w\-])|(?P<datetime>{literals.DATETIME})(?![\w:.])"
    rf"|(?P<date>{literals.DATE})(?![\w\-:.])|(?P<number>{literals.NUMBER})(?![\w.\-:])"
    r"|(?P<word>[^\W\d][\w.]*+)(?!')|(?P<variable>[$@]\w+)|(?P<mark>[(),/:])"
)
LITERALS: dict[str, Callable[[str], Value]] = {
    "string": literals.parse_string,
    "guid": literals.parse_guid,
    "datetime": literals.parse_datetime,
    "date": literals.parse_date,
    "number": literals.parse_number,
}


@dataclass(frozen=True, slots=True)
class Token:
    """A token. `position` counts characters from 1."""

    kind: str
    text: str
    position: int


def tokenize(text: str) -> list[Token]:
    """Split a filter. The last token marks the end. Raises Rejected."""
    tokens = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise FilterSyntaxError("text that is not part of a filter", position + 1)
        if match.lastgroup != "space":
            tokens.append(Token(match.lastgroup or "", match[0], position + 1))
        position = match.end()
    return [*tokens, Token("end", "", len(text) + 1)]


def parse_literal(token: Token) -> Value:
    """Parse the value of a literal. Raises Rejected."""
    try:
        return LITERALS[token.kind](token.text)
    except ValueError:
        raise FilterSyntaxError(f"the {token.kind} does not exist", token.position) from None


class FilterSyntaxError(BadRequest):
    """400: the filter is not valid at a position."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(f"{OPTION}, position {position}: {text}", OPTION)


class FilterNotSupported(NotSupported):
    """501: OData defines what is at a position, and the feed does not offer it."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(f"{OPTION}, position {position}: {text}", OPTION)
