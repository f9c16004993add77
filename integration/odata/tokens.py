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
from integration.odata.refusals import invalid, not_offered

OPTION = "$filter"

_TOKEN = re.compile(
    rf"(?P<space>[ \t]+)|(?P<string>{literals.STRING})"
    rf"|(?P<guid>{literals.GUID})(?![\w\-])|(?P<moment>{literals.MOMENT})(?![\w:.])"
    rf"|(?P<date>{literals.DATE})(?![\w\-:.])|(?P<number>{literals.NUMBER})(?![\w.\-:])"
    r"|(?P<word>[^\W\d][\w.]*+)(?!')|(?P<variable>[$@]\w+)|(?P<mark>[(),/:])"
)
LITERALS: dict[str, Callable[[str], Value]] = {
    "string": literals.string,
    "guid": literals.guid,
    "moment": literals.moment,
    "date": literals.midnight,
    "number": literals.number,
}


@dataclass(frozen=True, slots=True)
class Token:
    """`at` counts characters from 1."""

    sort: str
    text: str
    at: int


def read(text: str) -> list[Token]:
    """The last one is the end. Raises Rejected."""
    tokens = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise wrong("something that is no part of a filter", at + 1)
        if match.lastgroup != "space":
            tokens.append(Token(match.lastgroup or "", match[0], at + 1))
        at = match.end()
    return [*tokens, Token("end", "", len(text) + 1)]


def value_of(token: Token) -> Value:
    try:
        return LITERALS[token.sort](token.text)
    except ValueError:
        raise wrong(f"a {token.sort} that does not exist", token.at) from None


def wrong(text: str, at: int) -> Rejected:
    return invalid(f"{OPTION}, position {at}: {text}", OPTION)


def lacking(text: str, at: int) -> Rejected:
    """Defined by OData, and not built."""
    return not_offered(f"{OPTION}, position {at}: {text}", OPTION)
