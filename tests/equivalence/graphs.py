"""Do two FHIR servers hold the same resources, whatever ids they were given?"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from integration.fhir import write_mark

Body = dict[str, Any]

# References, and elements of type uri and url as far as real bundles hold links in them.
# https://hl7.org/fhir/R4/http.html#transaction: "elements of type uri, url, oid, uuid"
LINKS = ("reference", "url", "uri", "valueUri", "valueUrl")

_HREF = re.compile(r"""((?:href|src)\s*=\s*["'])([^"']+)""")

# https://hl7.org/fhir/R4/references.html#regex, without the server
_IDENTITY = re.compile(r"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})((?:/_history/[^#]*)?(?:#.*)?)")

# What a server says of its own write.
_OWN = ("versionId", "lastUpdated")


def picture(stored: Mapping[str, Body], chosen: Collection[str]) -> Counter[str]:
    """What is stored, as digests: equal digests are equal content that leads to equal content.

    Each resource begins as its own content, and its links take on what they lead to, again and
    again, until nothing more can be told apart (colour refinement). `chosen` are the Type/id that
    a sender gave; those are part of the content, and every other id is not.
    """
    colours = {name: name if name in chosen else "made up" for name in stored}
    contents = {name: _content(body) for name, body in stored.items()}
    kinds = 0
    while len(set(colours.values())) > kinds:
        kinds = len(set(colours.values()))
        led = partial(_led, colours=colours)
        colours = {
            name: _digest(colours[name], linked(body, led)) for name, body in contents.items()
        }
    return Counter(colours.values())


def linked(node: Any, link: Callable[[str], str]) -> Any:
    """The same JSON with its links passed through `link`, those in narrative too."""

    def one(name: str, value: Any) -> Any:
        if isinstance(value, str) and name in LINKS:
            return link(value)
        if isinstance(value, str) and name == "div":
            return _HREF.sub(lambda found: found[1] + link(found[2]), value)
        return linked(value, link)

    if isinstance(node, dict):
        return {name: one(name, value) for name, value in node.items()}
    return [linked(each, link) for each in node] if isinstance(node, list) else node


def _led(link: str, colours: Mapping[str, str]) -> str:
    found = _IDENTITY.fullmatch(link)
    return f"-> {colours[found[1]]}{found[2]}" if found and found[1] in colours else link


def _content(body: Body) -> Body:
    kept = {name: value for name, value in body.items() if name != "id"}
    meta = {name: value for name, value in body.get("meta", {}).items() if name not in _OWN}
    # The mark of the write is all that the relay adds to what a sender sent.
    extensions = [each for each in meta.pop("extension", []) if each["url"] != write_mark.URL]
    return {**kept, "meta": {**meta, **({"extension": extensions} if extensions else {})}}


def _digest(colour: str, body: Body) -> str:
    text = json.dumps([colour, body], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
