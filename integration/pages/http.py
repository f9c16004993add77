"""A request for a page, and the reply to it: what pages need to know of HTTP. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode

from integration.core.errors import Issue, Rejected

ROOT = "/api/pages"

_FORM = "application/x-www-form-urlencoded"

# Fields of a query or a form that are read.
_MAX_FIELDS = 200

# What an address holds beside letters and digits: quote() leaves it as it is.
_ADDRESS_SIGNS = "/?&=%+:,;@!$'()*~"

# Nothing is loaded but the stylesheet and the scripts of this app, nothing runs in line, nothing
# frames a page, and forms go nowhere else: https://www.w3.org/TR/CSP3/
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # With no-referrer the platform takes forms for foreign ones, and refuses them.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """A request below /api/pages. `path`: what follows, decoded; `query`: as it was sent; header
    names are lower case; `origins`: scheme and
    host at which people reach the app: its own, and that of a gateway."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    url: str
    origins: frozenset[str]

    @property
    def is_secure(self) -> bool:
        """Whether people reach the app over TLS: everywhere but on a laptop."""
        return all(origin.startswith("https://") for origin in self.origins)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered."""

    body: bytes
    status: int = 200
    media: str = "text/html"
    headers: Mapping[str, str] = field(default_factory=dict)


def redirect(path: str) -> Reply:
    """Send the browser to another page of these, after a form was taken. `path`: below ROOT; what
    no address may hold, such as the end of a header's line, is encoded."""
    location = f"{ROOT}/{quote(path, safe=_ADDRESS_SIGNS)}"
    return Reply(body=b"", status=303, headers={"Location": location})


def parse_fields(text: str) -> dict[str, str]:
    """Parse a query or the body of a form. A field without a value counts as missing, because a
    browser sends every field of a form. Raises Rejected."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Rejected(Issue("structure", "the fields of the request cannot be read")) from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        if not value.strip():
            continue
        if name in fields:
            raise Rejected(Issue("value", f"the field {name[:40]} is given twice"))
        fields[name] = value.strip()
    return fields


def read_form(request: PageRequest, max_bytes: int) -> dict[str, str]:
    """Parse a form without a file. Raises Rejected."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise Rejected(Issue("not-supported", f"a form is sent as {_FORM}"), status=415)
    if len(request.body) > max_bytes:
        raise Rejected(Issue("too-long", "the form is too long"), status=413)
    try:
        text = request.body.decode("ascii")
    except UnicodeDecodeError:
        raise Rejected(Issue("structure", "the form cannot be read")) from None
    return parse_fields(text)


def check_fields(fields: Mapping[str, str], known: Collection[str]) -> None:
    """Raise Rejected for a field that the page does not have: to ignore it would show, or do, more
    than was meant."""
    unknown = [name for name in fields if name not in known]
    if unknown:
        has = f"this page has {', '.join(known)}" if known else "this page has none"
        raise Rejected(Issue("not-supported", f"the field {unknown[0][:40]} is not known: {has}"))


def build_link(path: str, fields: Mapping[str, str | None] | None = None) -> str:
    """Build the address of a page. Fields that are None or empty are left out."""
    stated = {name: value for name, value in (fields or {}).items() if value}
    query = f"?{urlencode(stated)}" if stated else ""
    return f"{ROOT}/{quote(path)}{query}"
