"""The headers of OData: formats, versions, preferences, entity tags. Pure.

https://docs.oasis-open.org/odata/odata/v4.0/errata03/os/complete/part1-protocol/odata-v4.0-errata03-os-part1-protocol-complete.html#_Toc453752221
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from integration.core.errors import Issue, Rejected
from integration.odata.refusals import BadRequest, NotAcceptable

JSON = "application/json"
XML = "application/xml"

_NAMES = {"json": JSON, "xml": XML}
_VERSIONS = ("4.0", "4.01")
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Format:
    """How much is said about the values, and whether long numbers are written as text."""

    metadata: Literal["minimal", "full", "none"] = "minimal"
    ieee754: bool = False

    @property
    def content_type(self) -> str:
        text = ";IEEE754Compatible=true" if self.ieee754 else ""
        return f"{JSON};odata.metadata={self.metadata}{text}"


@dataclass(frozen=True, slots=True)
class Preferences:
    """What Prefer asks for; `representation`: None where nothing was said."""

    page_size: int | None = None
    representation: bool | None = None

    def format_applied(self, page_size: int | None = None) -> str | None:
        """Preference-Applied, with the page size that was kept to."""
        said = []
        if self.representation is not None:
            said.append(f"return={'representation' if self.representation else 'minimal'}")
        if self.page_size is not None and page_size is not None:
            said.append(f"odata.maxpagesize={page_size}")
        return ", ".join(said) or None


@dataclass(frozen=True, slots=True)
class IfMatch:
    """The versions that a change is meant for; None for any that exists."""

    versions: frozenset[str] | None

    def matches(self, version: str) -> bool:
        return self.versions is None or version in self.versions


def build_headers(content_type: str | None = None) -> dict[str, str]:
    headers = {"OData-Version": "4.0"}
    return {**headers, "Content-Type": content_type} if content_type else headers


def check_versions(version: str | None, most: str | None) -> None:
    """OData-Version and OData-MaxVersion of a request."""
    if version is not None and version.strip() not in _VERSIONS:
        raise BadRequest("OData-Version: this feed speaks 4.0", "OData-Version")
    if most is not None and not re.fullmatch(r"(?:[4-9]|[1-9][0-9])\.[0-9]{1,2}", most.strip()):
        raise BadRequest("OData-MaxVersion: this feed speaks 4.0", "OData-MaxVersion")


def negotiate_format(accept: str | None, option: str | None = None) -> Format:
    """The format of an answer; $format goes before Accept. Raises Rejected: 406."""
    for name, parameters in _acceptable(accept, option):
        metadata = parameters.get("odata.metadata") or parameters.get("metadata") or "minimal"
        if name in (JSON, "application/*", "*/*") and metadata in ("minimal", "full", "none"):
            return Format(metadata, parameters.get("ieee754compatible") == "true")  # type: ignore[arg-type]
    raise NotAcceptable(f"this feed answers in {JSON}")


def negotiate_metadata_format(
    accept: str | None, option: str | None = None, most: str | None = None
) -> Literal["xml", "json"]:
    """The format of $metadata. CSDL JSON is of OData 4.01: who knows 4.0 alone gets XML."""
    only_xml = most is not None and most.strip() == "4.0" and option is None
    for name, _ in _acceptable(accept, option):
        if name in (XML, "application/*", "*/*") or only_xml:
            return "xml"
        if name == JSON:
            return "json"
    raise NotAcceptable(f"$metadata comes in {XML} and {JSON}")


def has_numbers_as_text(content_type: str | None) -> bool:
    """Whether a body writes long numbers as text. Raises Rejected: 415 for what is not JSON."""
    name, parameters = _media_range(content_type or "")
    if name != JSON:
        raise Rejected(Issue("not-supported", f"bodies are {JSON}"), status=415)
    return parameters.get("ieee754compatible") == "true"


def parse_preferences(prefer: str | None) -> Preferences:
    """https://www.rfc-editor.org/rfc/rfc7240#section-2 -- what is not understood is ignored."""
    size: int | None = None
    representation: bool | None = None
    for item in (prefer or "").split(","):
        name, _, value = item.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"').lower()
        if name in ("odata.maxpagesize", "maxpagesize") and size is None:
            size = int(value) if re.fullmatch(r"[0-9]{1,10}", value) and int(value) else None
        elif name == "return" and representation is None:
            representation = {"representation": True, "minimal": False}.get(value)
    return Preferences(size, representation)


def format_etag(version: str) -> str:
    """Weak: one version can be written in more than one format."""
    return f'W/"{version}"'


def parse_if_match(header: str | None) -> IfMatch | None:
    """None without the header. Raises Rejected."""
    if header is None:
        return None
    if header.strip() == "*":
        return IfMatch(None)
    tags = [_TAG.fullmatch(tag.strip()) for tag in header.split(",")]
    if not all(tags):
        raise BadRequest("If-Match takes * or entity tags in double quotes", "If-Match")
    return IfMatch(frozenset(tag[1] for tag in tags if tag))


def _acceptable(accept: str | None, option: str | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Media ranges with their parameters, the dearest first."""
    if option is not None:
        name, parameters = _media_range(option)
        yield _NAMES.get(name, name), parameters
        return
    ranges = [_media_range(each) for each in (accept or "*/*").split(",")]
    weighed = [(_quality(each[1].get("q", "1")), each) for each in ranges]
    for quality, each in sorted(weighed, key=lambda pair: -pair[0]):
        if quality > 0:
            yield each


def _media_range(text: str) -> tuple[str, dict[str, str]]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    return name, {key.strip(): value.strip().strip('"') for key, _, value in pairs}


def _quality(text: str) -> float:
    return float(text) if re.fullmatch(r"[01](?:\.[0-9]{0,3})?", text) else 1.0
