"""Parse and build the headers of OData: formats, versions, preferences, ETags. Pure.

https://docs.oasis-open.org/odata/odata/v4.0/errata03/os/complete/part1-protocol/odata-v4.0-errata03-os-part1-protocol-complete.html#_Toc453752221
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from integration.odata.refusals import BadRequest, NotAcceptable, UnsupportedMediaType

JSON = "application/json"
XML = "application/xml"

_NAMES = {"json": JSON, "xml": XML}
_VERSIONS = ("4.0", "4.01")
_CHARSETS = ("utf-8", "utf8", "us-ascii")
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Format:
    """A JSON format: the amount of metadata, and whether long numbers are written as text."""

    metadata: Literal["minimal", "full", "none"] = "minimal"
    ieee754: bool = False

    @property
    def content_type(self) -> str:
        text = ";IEEE754Compatible=true" if self.ieee754 else ""
        return f"{JSON};odata.metadata={self.metadata}{text}"


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preferences of a request. `representation`: None if the request states none."""

    page_size: int | None = None
    representation: bool | None = None

    def format_return(self) -> str | None:
        """Format Preference-Applied of a create or change. It means nothing for a read."""
        if self.representation is None:
            return None
        return f"return={'representation' if self.representation else 'minimal'}"

    def format_page_size(self, page_size: int) -> str | None:
        """Format Preference-Applied of a collection, with the page size that was used."""
        return None if self.page_size is None else f"odata.maxpagesize={page_size}"


@dataclass(frozen=True, slots=True)
class IfMatch:
    """The versions that a change is for; None: any that exists."""

    versions: frozenset[str] | None

    def matches(self, version: str) -> bool:
        return self.versions is None or version in self.versions


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What a request says of the version that is there: If-Match and If-None-Match.
    https://www.rfc-editor.org/rfc/rfc9110#section-13.1"""

    match: IfMatch | None = None
    none_match: IfMatch | None = None

    @property
    def names_version(self) -> bool:
        """Whether the request is for certain versions alone."""
        return self.match is not None and self.match.versions is not None

    def allow(self, version: str) -> bool:
        """Whether a change of this version, which exists, may be made."""
        return self.matches(version) and not self.is_known(version)

    def matches(self, version: str) -> bool:
        """Whether If-Match holds."""
        return self.match is None or self.match.matches(version)

    def is_known(self, version: str) -> bool:
        """Whether If-None-Match names the version, or any: the client has it already."""
        return self.none_match is not None and self.none_match.matches(version)


def build_headers(content_type: str | None = None) -> dict[str, str]:
    """Build the headers that every response has."""
    headers = {"OData-Version": "4.0"}
    return {**headers, "Content-Type": content_type} if content_type else headers


def check_versions(version: str | None, max_version: str | None) -> None:
    """Check OData-Version and OData-MaxVersion of a request. Raises Rejected."""
    if version is not None and _strip_version(version) not in _VERSIONS:
        raise BadRequest("this feed offers OData-Version 4.0", "OData-Version")
    if max_version is not None and not re.fullmatch(
        r"(?:[4-9]|[1-9][0-9])\.[0-9]{1,2}", _strip_version(max_version)
    ):
        raise BadRequest("this feed offers OData-MaxVersion 4.0", "OData-MaxVersion")


def _strip_version(header: str) -> str:
    """Return a version without the product that older clients of .NET name behind it:
    https://github.com/OData/odata.net/issues/34"""
    return header.partition(";")[0].strip()


def negotiate_format(accept: str | None, option: str | None = None) -> Format:
    """Choose the format of a response; $format goes before Accept. Raises Rejected: 406."""
    for name, parameters in _list_media_ranges(accept, option):
        metadata = parameters.get("odata.metadata") or parameters.get("metadata") or "minimal"
        if name in (JSON, "application/*", "*/*") and metadata in ("minimal", "full", "none"):
            return Format(metadata, parameters.get("ieee754compatible") == "true")  # type: ignore[arg-type]
    raise NotAcceptable(f"this feed responds in {JSON}")


def negotiate_metadata_format(
    accept: str | None, option: str | None = None, max_version: str | None = None
) -> Literal["xml", "json"]:
    """Choose the format of $metadata. CSDL JSON is of OData 4.01: clients of 4.0 get XML."""
    only_xml = max_version is not None and _strip_version(max_version) == "4.0" and option is None
    for name, _ in _list_media_ranges(accept, option):
        if name in (XML, "application/*", "*/*") or only_xml:
            return "xml"
        if name == JSON:
            return "json"
    raise NotAcceptable(f"$metadata is available in {XML} and {JSON}")


def parse_body_format(content_type: str | None, encoding: str | None = None) -> bool:
    """Parse what a body is, and return whether it writes long numbers as text.

    Raises Rejected: 415 for what is not JSON in UTF-8, which JSON on a network has to be:
    https://www.rfc-editor.org/rfc/rfc8259#section-8.1
    """
    name, parameters = _parse_media_range(content_type or "")
    if name != JSON:
        raise UnsupportedMediaType(f"bodies must be {JSON}")
    if parameters.get("charset", "utf-8") not in _CHARSETS:
        raise UnsupportedMediaType(f"bodies must be {JSON} in UTF-8", "Content-Type")
    if (encoding or "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("bodies must be sent uncompressed", "Content-Encoding")
    return parameters.get("ieee754compatible") == "true"


def parse_preferences(prefer: str | None) -> Preferences:
    """Parse Prefer; unknown preferences are ignored: https://www.rfc-editor.org/rfc/rfc7240#section-2"""
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
    """Format a weak ETag, since a version can be written in more than one format."""
    return f'W/"{version}"'


def parse_preconditions(headers: Mapping[str, str]) -> Preconditions:
    """Parse If-Match and If-None-Match. Names of `headers` are lower case. Raises Rejected."""
    return Preconditions(
        parse_if_match(headers.get("if-match")),
        parse_if_match(headers.get("if-none-match"), "If-None-Match"),
    )


def parse_if_match(header: str | None, name: str = "If-Match") -> IfMatch | None:
    """Parse If-Match or If-None-Match. None without the header. Raises Rejected."""
    if header is None:
        return None
    if header.strip() == "*":
        return IfMatch(None)
    tags = [_TAG.fullmatch(tag.strip()) for tag in header.split(",")]
    if not all(tags):
        raise BadRequest(f"{name} takes * or entity tags in double quotes", name)
    return IfMatch(frozenset(tag[1] for tag in tags if tag))


def _list_media_ranges(
    accept: str | None, option: str | None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the media ranges with their parameters, in order of preference."""
    if option is not None:
        name, parameters = _parse_media_range(option)
        yield _NAMES.get(name, name), parameters
        return
    ranges = [_parse_media_range(range_) for range_ in (accept or "*/*").split(",")]
    weighed = [(_parse_quality(range_[1].get("q", "1")), range_) for range_ in ranges]
    for quality, range_ in sorted(weighed, key=lambda pair: -pair[0]):
        if quality > 0:
            yield range_


def _parse_media_range(text: str) -> tuple[str, dict[str, str]]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    return name, {key.strip(): value.strip().strip('"') for key, _, value in pairs}


def _parse_quality(text: str) -> float:
    return float(text) if re.fullmatch(r"[01](?:\.[0-9]{0,3})?", text) else 1.0
