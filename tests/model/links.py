"""Which entry of a bundle does a link name? Told once more, straight from the specification.

https://hl7.org/fhir/R4/bundle.html#references and https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

Body = dict[str, Any]

_RESTFUL = re.compile(r"(https?://.*/)?([A-Z][A-Za-z]+/[A-Za-z0-9.-]+)(/_history/[^#]+)?")


def entry_named(link: str, container: Body, entries: Sequence[Body]) -> int | None:
    """The position of the entry that `link`, found in `container`, means.

    Only a history repeats a fullUrl, and then it is one resource all the same.
    """
    link = link.partition("#")[0]

    def at(url: str) -> int | None:
        # What is deleted can be no resource that a link means.
        named = (n for n, each in enumerate(entries) if _alike(each.get("fullUrl"), url))
        return next((n for n in named if entries[n]["request"]["method"] != "DELETE"), None)

    if link.startswith("urn:"):
        return at(link)
    parsed = _RESTFUL.fullmatch(link)
    if parsed is None:
        return None
    root, identity = parsed[1], parsed[2]
    if root is None:
        home = _RESTFUL.fullmatch(container.get("fullUrl") or "")
        found = at(home[1] + identity) if home and home[1] else None
        if found is not None:
            return found
        # The specification says nothing of a container without an address: the one entry it fits.
        fitting = [
            n
            for n, each in enumerate(entries)
            if identity_of(each) == identity and each["request"]["method"] != "DELETE"
        ]
        return fitting[0] if len(fitting) == 1 else None
    return at(root + identity)


def identity_of(entry: Body) -> str | None:
    """Type/id as the sender knows it."""
    url = entry["request"]["url"]
    if entry["request"]["method"] in ("GET", "HEAD"):
        return None
    if "/" in url:
        return str(url)
    own = entry.get("resource", {}).get("id")
    return f"{url.partition('?')[0]}/{own}" if own else None


def suffix_of(link: str, target: Body) -> str:
    """The version and fragment, which stay when the rest is replaced. What is created has no version
    of the sender's."""
    link, mark, fragment = link.partition("#")
    version = re.search(r"/_history/.*", link)
    is_created = target["request"]["method"] == "POST"
    return ("" if is_created or not version else version[0]) + mark + fragment


def replaced(resource: Body, new: Callable[[str], str]) -> Body:
    """The resource with each of its links passed through `new`: references, addresses of
    attachments, and those in the narrative. Canonicals and other text are no links."""
    found = _replaced(resource, new)
    if "div" in resource.get("text", {}):
        before, *rest = re.split(r"(?<=href=\")(.*?)(?=\")", resource["text"]["div"])
        div = before + "".join(new(part) if n % 2 == 0 else part for n, part in enumerate(rest))
        found["text"] = {**resource["text"], "div": div}
    return found


def _replaced(node: Any, new: Callable[[str], str], name: str = "") -> Any:
    match node:
        case dict():
            return {key: _replaced(value, new, _place(name, key)) for key, value in node.items()}
        case list():
            return [_replaced(each, new, name) for each in node]
        case str() if name in ("reference", "attachment.url"):
            return new(node)
    return node


def _place(name: str, key: str) -> str:
    return "attachment.url" if name.endswith("ttachment") and key == "url" else key


def links_of(resource: Body) -> list[str]:
    found: list[str] = []

    def seen(link: str) -> str:
        found.append(link)
        return link

    replaced(resource, seen)
    return found


def with_searches(entry: Body, new: Callable[[str], str]) -> Body:
    """The entry with the placeholders in its searches replaced."""
    request = dict(entry["request"])
    url, mark, query = request["url"].partition("?")
    if mark:
        request["url"] = f"{url}?{_in_query(query, new)}"
    if "ifNoneExist" in request:
        request["ifNoneExist"] = _in_query(request["ifNoneExist"], new)
    return {**entry, "request": request}


def _in_query(query: str, new: Callable[[str], str]) -> str:
    """A search with the placeholders in it replaced; they may be percent-encoded."""
    pairs = [each.split("=", 1) for each in query.split("&")]
    return "&".join(
        f"{name}={new(unquote(value)) if unquote(value).startswith('urn:') else value}"
        for name, value in pairs
    )


def _alike(full_url: str | None, link: str) -> bool:
    if full_url is None:
        return False
    if link.lower().startswith("urn:uuid:"):
        return full_url.lower() == link.lower()
    return full_url == link
