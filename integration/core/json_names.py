"""Names that occur twice in one JSON object, of which a parser keeps only the last. Pure.

https://hl7.org/fhir/R4/json.html: property names SHALL be unique. No parser that keeps the digits
of decimals tells, so the names in the text are counted and compared with those that were kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from json import loads
from typing import Any

# The end of a name. A string that ends or begins with a colon can look like one, so there are at
# least as many of these as there are names.
_NAME_END = re.compile(rb'"[ \t\r\n]*:')

# A name that no element can have is text of the sender and may hold anything. Its parent is named
# instead. https://hl7.org/fhir/R4/elementdefinition.html#def (eld-19, eld-20)
ELEMENT_NAME = re.compile(r"_?[a-z][A-Za-z0-9]{0,63}")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a name occurs twice: the names and list indexes that lead there."""

    path: tuple[str | int, ...]


def find_duplicate(data: bytes, names: int) -> str | None:
    """Return the path of a name that occurs twice in its object; None if there is none.

    `data` is sound JSON, and `names` how many names were kept of it. Counting costs a third of
    parsing; the text is looked at more closely only where the numbers differ. The path is empty
    where the top has the name twice and it is no name of an element.
    """
    if len(_NAME_END.findall(data)) == names:
        return None
    # Numbers stay text, which costs less.
    found = _search(
        loads(
            data,
            object_pairs_hook=_check_object,
            parse_int=str,
            parse_float=str,
            parse_constant=str,
            strict=False,
        )
    )
    return None if found is None else _format(found.path)


def _check_object(pairs: list[tuple[str, Any]]) -> _Place | None:
    """Return where a name occurs twice in this object or below it. Nothing else is kept of it."""
    seen: set[str] = set()
    for name, value in pairs:
        found = _search(value)
        if found is not None:
            return _Place((name, *found.path))
        if name in seen:
            return _Place((name,))
        seen.add(name)
    return None


def _search(value: Any) -> _Place | None:
    if type(value) is _Place:
        return value
    if type(value) is list:
        for index, inner in enumerate(value):
            found = _search(inner)
            if found is not None:
                return _Place((index, *found.path))
    return None


def _format(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif ELEMENT_NAME.fullmatch(part):
            text += f".{part}" if text else part
        else:
            break
    return text
