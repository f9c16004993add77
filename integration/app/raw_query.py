"""Read the query parameters of a request from its url, as they were sent. Pure.

The Functions host drops parameters without a value before Python sees them, and joins those that
are given twice, so `req.params` cannot tell `?dry-run` from no parameter at all:
https://github.com/Azure/azure-functions-python-worker/issues/894
https://github.com/Azure/azure-functions-host/issues/3789
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import unquote_plus

from integration.core.errors import Issue, Rejected
from integration.fhir.server_parameters import find_refusal

# The function key, which some callers send as a parameter. The host has checked it.
_FUNCTION_KEY = "code"

# What an issue may repeat: the name of a parameter, not a value that stands where a name belongs.
_NAME = re.compile(r"[A-Za-z_][A-Za-z_-]{0,30}")


def parse_query(url: str, known: Collection[str]) -> dict[str, str]:
    """Return the parameters of a request by name, without the function key.

    `known`: the parameters that the address takes. Raises Rejected for any other, and for one that
    is empty or given twice: if it were ignored, more would be done or found than was meant.
    """
    query: dict[str, str] = {}
    for part in filter(None, url.partition("?")[2].split("&")):
        raw_name, _, raw_value = part.partition("=")
        name, value = _decode(raw_name), _decode(raw_value)
        if name == _FUNCTION_KEY:
            continue
        if name not in known:
            raise _build_unknown(name, known)
        if not value.strip():
            raise Rejected(Issue("value", f"the parameter {name} has no value", name))
        if name in query:
            raise Rejected(Issue("value", f"the parameter {name} is given twice", name))
        query[name] = value
    return query


def split_condition(
    url: str, known: Collection[str], *, is_key_in_query: bool
) -> tuple[dict[str, str], str | None]:
    """Return this app's own parameters, and the rest of the query as it was sent: the condition of
    a conditional interaction. None: there is no rest.

    `known`: the app's own; `is_key_in_query`: the parameter `code` is the function key. Raises
    Rejected like parse_query.
    """
    path, _, query = url.partition("?")
    known_parts, condition, keys = list[str](), list[str](), list[str]()
    # Not those of FHIR: `format` is a search parameter, and `_format` is not.
    folded = {_fold(name): name for name in known if not name.startswith("_")}
    for part in filter(None, query.split("&")):
        raw_name, _, value = part.partition("=")
        name = _decode(raw_name)
        if is_key_in_query and name == _FUNCTION_KEY:
            keys.append(_decode(value))
            continue
        if name not in known and _fold(name) in folded:
            # A server would pass over it.
            raise Rejected(Issue("value", f"the parameter is spelt {folded[_fold(name)]}"))
        (known_parts if name in known else condition).append(part)
    if len(keys) > 1 or any("|" in key for key in keys):
        text = "code is the function key here: send the key as x-functions-key, and code searches"
        raise Rejected(Issue("value", text, _FUNCTION_KEY))
    return parse_query(f"{path}?{'&'.join(known_parts)}", known), "&".join(condition) or None


def _build_unknown(name: str, known: Collection[str]) -> Rejected:
    if (reason := find_refusal(name)) is not None:
        return Rejected(Issue("not-supported", reason, name))
    named = f"the parameter {name}" if _NAME.fullmatch(name) else "one of the parameters"
    exist = f"this address takes {', '.join(known)}" if known else "this address takes none"
    expression = name if _NAME.fullmatch(name) else None
    return Rejected(Issue("not-supported", f"{named} is not known: {exist}", expression))


def _fold(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _decode(text: str) -> str:
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise Rejected(Issue("value", "a parameter is not UTF-8")) from None
