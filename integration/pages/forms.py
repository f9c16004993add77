"""Check that a form was sent by a page of this app, and not by a page of somebody else's. Pure.

Three things must agree: the browser says that the form comes from this origin; it sends a cookie
that no other site can set or have sent; and the form repeats the cookie's value.
https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from integration.core.errors import Issue, Rejected
from integration.pages.http import PageRequest

TOKEN_FIELD = "token"  # noqa: S105 -- the name of a field

_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,64}")


def read_token(request: PageRequest) -> str | None:
    """Return the token of the browser's cookie; None: it has none yet."""
    # Not http.cookies: it reads nothing behind a cookie of somebody else that it finds malformed.
    wanted = _name_cookie(request)
    for pair in request.headers.get("cookie", "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == wanted and _TOKEN.fullmatch(value):
            return value
    return None


def build_cookie(request: PageRequest, token: str) -> str:
    """Return the header that has the browser keep the token."""
    # Not Strict: a link in a mail would open a page without the token, and its forms would fail.
    secure = "; Secure" if request.is_secure else ""
    return f"{_name_cookie(request)}={token}; Path=/; HttpOnly; SameSite=Lax{secure}"


def check_origin(request: PageRequest) -> None:
    """Raise Rejected with 403 for a form of which the browser does not say that it comes from this
    app. It reads nothing of the form."""
    origin = request.headers.get("origin", "")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if origin not in request.origins or site != "same-origin":
        text = "the form does not come from a page of this app: open the page anew and try again"
        raise Rejected(Issue("forbidden", text), status=403)


def check_form(request: PageRequest, fields: Mapping[str, str]) -> None:
    """Raise Rejected with 403 for a form that no page of this app has sent."""
    check_origin(request)
    token = read_token(request)
    stated = fields.get(TOKEN_FIELD, "").encode()
    if token is None or not hmac.compare_digest(token.encode(), stated):
        text = "the form is not of this browser, or too old: open the page anew and try again"
        raise Rejected(Issue("forbidden", text), status=403)


def _name_cookie(request: PageRequest) -> str:
    # The prefix has browsers take the cookie from this host alone, over TLS alone:
    # https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#name-the-__host-prefix
    return "__Host-relay-form" if request.is_secure else "relay-form"
