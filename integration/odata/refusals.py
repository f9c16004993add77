"""What the feed refuses, and how OData says so. Pure.

https://docs.oasis-open.org/odata/odata/v4.0/errata03/os/complete/part1-protocol/odata-v4.0-errata03-os-part1-protocol-complete.html#_Toc453752247
Texts name properties and options, and where in an option; never a value, which is patient data.
"""

from __future__ import annotations

import re

from integration.core.errors import Issue, Rejected

# https://docs.oasis-open.org/odata/odata/v4.01/os/abnf/odata-abnf-construction-rules.txt
_IDENTIFIER = re.compile(r"[^\W\d]\w{0,127}")


def is_name(text: str) -> bool:
    """Whether a property could have this name; anything else is not repeated to anybody."""
    return _IDENTIFIER.fullmatch(text) is not None


def BadRequest(text: str, target: str | None = None) -> Rejected:
    return Rejected(Issue("invalid", text, target))


def NotSupported(text: str, target: str | None = None) -> Rejected:
    """Defined by OData, and not built."""
    return Rejected(Issue("not-supported", text, target), status=501)


def NotFound(text: str) -> Rejected:
    return Rejected(Issue("not-found", text), status=404)


def NotAcceptable(text: str) -> Rejected:
    return Rejected(Issue("not-supported", text), status=406)


def UnknownProperty(name: str, set_name: str, target: str | None = None) -> Rejected:
    if not is_name(name):
        return BadRequest(f"something that is no property name of {set_name}", target)
    return BadRequest(f"{set_name} has no property {name}", name)
