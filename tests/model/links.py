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


def find_entry(link: str, container: Body, entries: Sequence[Body]) -> int | None:
    """The position of the entry that `link`, found in `container`, means.

    Only a history repeats a fullUrl, and then it is one resource all the same.
    """
    link = link.partition("#")[0]

    def at(url: str) -> int | None:
        return next(
            (n for n, entry in enumerate(entries) if _is_same_url(entry.get("fullUrl"), url)), None
        )

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
        fitting = [n for n, entry in enumerate(entries) if get_identity(entry) == identity]
        return fitting[0] if len(fitting) == 1 else None
    return at(root + identity)


def get_identity(entry: Body) -> str | None:
    """Type/id as the sender knows it."""
    url = entry["request"]["url"]
    if entry["request"]["method"] in ("GET", "HEAD"):
        return None
    if "/" in url:
        return str(url)
    id_ = entry.get("resource", {}).get("id")
    return f"{url.partition('?')[0]}/{id_}" if id_ else None


def get_suffix(link: str) -> str:
    """The version and fragment, which stay when the rest is replaced."""
    link, mark, fragment = link.partition("#")
    version = re.search(r"/_history/.*", link)
    return (version[0] if version else "") + mark + fragment


def replace_links(resource: Body, new: Callable[[str], str]) -> Body:
    """The resource with each of its links passed through `new`; these are all that the
    deliveries of these tests have. Canonicals and text are no links."""
    found = dict(resource)
    if "refers" in found:
        found["refers"] = [
            {"reference": new(reference["reference"])} for reference in found["refers"]
        ]
    if "attachment" in found:
        found["attachment"] = {"url": new(found["attachment"]["url"])}
    if "text" in found:
        before, link, after = re.split(r"(?<=href=\")(.*?)(?=\")", found["text"]["div"])
        found["text"] = {"div": before + new(link) + after}
    return found


def list_links(resource: Body) -> list[str]:
    found: list[str] = []

    def seen(link: str) -> str:
        found.append(link)
        return link

    replace_links(resource, seen)
    return found


def replace_search_links(entry: Body, new: Callable[[str], str]) -> Body:
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
    pairs = [pair.split("=", 1) for pair in query.split("&")]
    return "&".join(
        f"{name}={new(unquote(value)) if unquote(value).startswith('urn:') else value}"
        for name, value in pairs
    )


def _is_same_url(full_url: str | None, link: str) -> bool:
    if full_url is None:
        return False
    if link.lower().startswith("urn:uuid:"):
        return full_url.lower() == link.lower()
    return full_url == link
