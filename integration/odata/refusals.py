"""What the feed refuses, as OData reports it. Pure.

https://docs.oasis-open.org/odata/odata/v4.0/errata03/os/complete/part1-protocol/odata-v4.0-errata03-os-part1-protocol-complete.html#_Toc453752247
Texts name properties and options, and the position in an option; never a value, since values are
patient data.
"""

from __future__ import annotations

import re

from integration.core.errors import Issue, Rejected

# https://docs.oasis-open.org/odata/odata/v4.01/os/abnf/odata-abnf-construction-rules.txt
_IDENTIFIER = re.compile(r"[^\W\d]\w{0,127}")


def is_name(text: str) -> bool:
    """Whether a property could have this name. Any other text must not be repeated to a client."""
    return _IDENTIFIER.fullmatch(text) is not None


class BadRequest(Rejected):
    """400: the request is not valid OData, or does not fit the entity type."""

    def __init__(self, text: str, target: str | None = None) -> None:
        super().__init__(Issue("invalid", text, target))


class UnknownProperty(BadRequest):
    """400: the entity type has no such property."""

    def __init__(self, name: str, set_name: str, target: str | None = None) -> None:
        if is_name(name):
            super().__init__(f"{set_name} has no property {name}", name)
        else:
            super().__init__(f"something that is no property name of {set_name}", target)


class NotFound(Rejected):
    """404."""

    def __init__(self, text: str) -> None:
        super().__init__(Issue("not-found", text), status=404)


class NotAcceptable(Rejected):
    """406: the feed has none of the formats that the client accepts."""

    def __init__(self, text: str) -> None:
        super().__init__(Issue("not-supported", text), status=406)


class Gone(Rejected):
    """410: it was there, and is no longer."""

    def __init__(self, text: str, target: str | None = None) -> None:
        super().__init__(Issue("expired", text, target), status=410)


class UnsupportedMediaType(Rejected):
    """415: the body is not of a form that the feed reads."""

    def __init__(self, text: str, target: str | None = None) -> None:
        super().__init__(Issue("not-supported", text, target), status=415)


class NotSupported(Rejected):
    """501: OData defines it, and the feed does not offer it."""

    def __init__(self, text: str, target: str | None = None) -> None:
        super().__init__(Issue("not-supported", text, target), status=501)
