"""Links of a resource: find the entry that each points at, and rewrite it. Pure.

Links are found by structure, never by text: `Reference.reference`, elements of type uri, url, oid
and uuid, and links in the narrative (https://hl7.org/fhir/R4/http.html#transaction, "replace").
Canonicals, identifiers and text stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from integration.core.model import FhirResource
from integration.fhir.entries import Entry
from integration.fhir.grammar import fold_url, parse_literal

# Elements of R4 whose type is uri, url, oid or uuid and which hold a link. Left out on
# purpose: those that name a thing (system, implicitRules, meta.profile, code), and those for
# definitions.
# tests/fhir/test_references.py holds this list against the definitions of R4.
URI_ELEMENTS = frozenset(
    """
    address authority endpoint instantiatesUri issuer onlineInformation policy protocol reference
    rendering source sourceUri targetUri uri url valueOid valueUri valueUrl valueUuid
    """.split()
)

_LINK_ELEMENTS = URI_ELEMENTS | {"div"}

# No attribute holds a bare `<`, and without it the search is linear:
# https://www.w3.org/TR/xml/#NT-AttValue
_HREF = re.compile(r"(<(?:a|img)\b[^<>]*?\s(?:href|src)\s*=\s*)(\"[^\"]*\"|'[^']*')")

_XHTML = '<div xmlns="http://www.w3.org/1999/xhtml"'

# Beside a bar it is part of a token, system|value: https://hl7.org/fhir/R4/search.html#token
_URN = re.compile(
    r"(?<!\|)(?<!%7C)urn(?::|%3A)(?:uuid|oid)(?::|%3A)[0-9A-Za-z.\-]+(?![0-9A-Za-z.\-|]|%7C)",
    re.IGNORECASE,
)

# Search parameters that may hold a urn which is no link: tokens, and some of type uri.
URI_PARAMETERS = frozenset(
    """
    _profile _security _source _tag code destination-uri identifier instantiates-uri source-system
    system target-system url
    """.split()
)

# (element name, value) -> the value to write; the same object if nothing changes
RewriteLink = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class LinkIndex:
    """The positions of entries by fullUrl and by Type/id."""

    by_url: dict[str, tuple[int, ...]]
    by_identity: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class ResolvedLink:
    """What a link points at. `positions`: of an entry, or of two if it can mean several."""

    positions: tuple[int, ...]
    version: str  # /_history/version, or empty
    fragment: str  # with its #, or empty


def build_index(entries: Iterable[Entry], targets: Sequence[str]) -> LinkIndex:
    """Return look-up tables over the entries of a delivery.

    `targets[position]` says which resource an entry is: those of the same target are one.
    """
    index = LinkIndex({}, {})
    for entry in entries:
        if entry.full_url:
            _add(index.by_url, fold_url(entry.full_url), entry.position, targets)
        identity = entry.identity
        if identity:
            _add(index.by_identity, identity, entry.position, targets)
    return index


def _add(
    table: dict[str, tuple[int, ...]], name: str, position: int, targets: Sequence[str]
) -> None:
    known = table.setdefault(name, (position,))
    # Two are enough to tell that a link is ambiguous, and there may be very many.
    if len(known) == 1 and targets[known[0]] != targets[position]:
        table[name] = (*known, position)


def resolve(link: str, container: Entry, index: LinkIndex) -> ResolvedLink | None:
    """Return what `link` points at among the entries, or None.

    https://hl7.org/fhir/R4/bundle.html#references; what the specification leaves open (a relative
    link inside an entry whose fullUrl is a urn, or absent) goes to the entries of that identity.
    """
    if link.startswith("#"):
        return None
    target, mark, fragment = link.partition("#")
    suffix = mark + fragment
    positions = index.by_url.get(fold_url(target))
    if positions is not None:
        return ResolvedLink(positions, "", suffix)
    parsed = parse_literal(target)
    if parsed is None:
        return None
    root, identity, version = parsed
    if root:
        positions = index.by_url.get(root + identity)
    else:
        positions = _resolve_relative(identity, container, index)
    return None if positions is None else ResolvedLink(positions, version, suffix)


def _resolve_relative(identity: str, container: Entry, index: LinkIndex) -> tuple[int, ...] | None:
    home = parse_literal(container.full_url) if container.full_url else None
    if home and home.root:
        positions = index.by_url.get(home.root + identity)
        if positions is not None:
            return positions
    return index.by_identity.get(identity)


def rewrite_query(query: str, link: RewriteLink) -> str:
    """Return a search with its placeholders rewritten by `link`. They may be percent-encoded."""
    if _URN.search(query) is None:
        return query
    return "&".join(_rewrite_parameter(part, link) for part in query.split("&"))


def rewrite_resource(resource: FhirResource, link: RewriteLink) -> FhirResource:
    """Return the resource with its links rewritten. Its own canonical url is a name, not a link."""
    new: FhirResource = rewrite_links(resource, link)
    name = resource.get("url")
    return {**new, "url": name} if new.get("url") is not name else new


def rewrite_links(node: Any, link: RewriteLink, element: str = "") -> Any:
    """Return the JSON with every link rewritten by `link`. Unchanged parts are shared, not copied.

    Recursive: callers refuse what is nested beyond decimal_json.MAX_DEPTH. Planning spends most of
    its time here, so the most frequent cases are tested first.
    """
    changed: Any = None
    if type(node) is dict:
        for name, value in node.items():
            kind = type(value)
            if kind is str and name not in _LINK_ELEMENTS:
                continue
            new = value
            if kind is dict or kind is list:
                new = rewrite_links(value, link, name)
            elif kind is str:
                new = link(name, value) if name != "div" else _rewrite_narrative(value, link)
            if new is not value:
                changed = changed or node.copy()
                changed[name] = new
    elif type(node) is list:
        for number, value in enumerate(node):
            new = rewrite_links(value, link, element)
            if new is not value:
                changed = changed or node.copy()
                changed[number] = new
    elif type(node) is str and element in URI_ELEMENTS:
        return link(element, node)
    return changed or node


def _rewrite_parameter(part: str, link: RewriteLink) -> str:
    name, mark, value = part.partition("=")
    if not URI_PARAMETERS.isdisjoint(re.split(r"[.:]", unquote(name))):
        return part
    return f"{name}{mark}{_URN.sub(lambda match: _rewrite_urn(match[0], link), value)}"


def _rewrite_urn(urn: str, link: RewriteLink) -> str:
    value = unquote(urn)
    new = link("query", value)
    return urn if new == value else new


def _rewrite_narrative(div: str, link: RewriteLink) -> str:
    # A link is an attribute. Most narratives have no attribute but their namespace, and to search
    # for one character is far cheaper than for a word, in what is most of the text of a bundle.
    if div.find("=", len(_XHTML) if div.startswith(_XHTML) else 0) < 0:
        return div
    if "href" not in div and "src" not in div:
        return div

    def replace_href(match: re.Match[str]) -> str:
        quoted = match[2]
        return f"{match[1]}{quoted[0]}{link('div', quoted[1:-1])}{quoted[0]}"

    new = _HREF.sub(replace_href, div)
    return div if new == div else new
