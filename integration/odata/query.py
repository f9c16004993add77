"""Parse the query options of a request. Pure.

https://docs.oasis-open.org/odata/odata/v4.01/os/part2-url-conventions/odata-v4.01-os-part2-url-conventions.html#sec_SystemQueryOptions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_plus

from integration.core.errors import Issue, Rejected
from integration.odata import filter as filters
from integration.odata.addresses import Address, Collection, Count, Entity
from integration.odata.expressions import Expression, Order
from integration.odata.model import EntityType, Property
from integration.odata.refusals import BadRequest, NotSupported, UnknownProperty, is_name

MAX_LENGTH = 16_384

_OPTIONS: dict[type[Address], frozenset[str]] = {
    Collection: frozenset("filter select orderby top skip count skiptoken format".split()),
    Count: frozenset({"filter"}),
    Entity: frozenset({"select", "format"}),
}
_SYSTEM_OPTIONS = _OPTIONS[Collection]
_NOT_SUPPORTED = frozenset({"expand", "search", "apply", "compute"})
# Only with the $: without it they may be custom options.
_NOT_SUPPORTED_WITH_SIGN = frozenset({"deltatoken", "id", "index", "levels", "schemaversion"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The query options. `select`: the requested properties and the key; None: all properties."""

    filter: Expression | None = None
    select: tuple[Property, ...] | None = None
    order_by: tuple[Order, ...] = ()
    top: int | None = None
    skip: int = 0
    count: bool = False
    skip_token: str | None = None
    format: str | None = None


def parse(text: str, address: Address) -> Query:
    """Parse what follows the question mark, percent-encoded as it was sent. Raises Rejected."""
    stated = _split_options(text)
    for name in stated:
        if name not in _OPTIONS.get(type(address), {"format"}):
            raise BadRequest(f"${name} does not belong to this address", f"${name}")
    if not isinstance(address, Collection | Count | Entity):
        return Query(format=stated.get("format"))
    entity = address.entity
    return Query(
        filter=filters.parse(stated["filter"], entity) if "filter" in stated else None,
        select=_parse_select(stated["select"], entity) if "select" in stated else None,
        order_by=_parse_orderby(stated["orderby"], entity) if "orderby" in stated else (),
        top=_parse_whole(stated, "top"),
        skip=_parse_whole(stated, "skip") or 0,
        count=_parse_count(stated.get("count", "false")),
        skip_token=stated.get("skiptoken"),
        format=stated.get("format"),
    )


def build_next_link(address: str, text: str, token: str, top: int | None = None) -> str:
    """Build the URL of the page after this one.

    It has the same system options, but `token` as $skiptoken and `top` as $top, which is how many
    rows are left. Other options are left out, since one may be a function key.
    """
    options_ = {**_split_options(text), "skiptoken": token}
    options_.pop("skip", None)
    if "top" in options_:
        options_["top"] = str(top or 0)
    options = (f"${name}={quote(value, safe='')}" for name, value in options_.items())
    return f"{address}?{'&'.join(options)}"


def _split_options(text: str) -> dict[str, str]:
    """Split a query into its system options, by lower-case name without $. Each may occur once."""
    if len(text) > MAX_LENGTH:
        raise Rejected(Issue("too-long", f"over {MAX_LENGTH:,} characters of query"), status=414)
    options: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        raw, _, encoded = part.partition("=")
        stated = _decode(raw)
        name = stated.removeprefix("$").lower()
        if not _is_system_option(stated, name):
            continue
        if name in options:
            raise BadRequest(f"${name} is given twice", f"${name}")
        options[name] = _decode(encoded)
        if not options[name].strip():
            raise BadRequest(f"${name} has no value", f"${name}")
    return options


def _is_system_option(stated: str, name: str) -> bool:
    """Whether it is a system option that the feed offers. OData 4.01 allows it without the $.

    Parameter aliases and custom options are ignored. Raises Rejected for other system options.
    """
    with_sign = stated.startswith("$")
    if name in _SYSTEM_OPTIONS:
        return True
    if name in _NOT_SUPPORTED or (with_sign and name in _NOT_SUPPORTED_WITH_SIGN):
        raise NotSupported(f"${name} is not offered", f"${name}")
    if with_sign:
        named = f"${name}" if is_name(name) else None
        raise BadRequest(f"{named or 'a query option'} is not an option of OData", named)
    return False


def _decode(text: str) -> str:
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("a query option is not UTF-8") from None


def _parse_select(text: str, entity: EntityType) -> tuple[Property, ...] | None:
    names = [name.strip() for name in text.split(",")]
    selected = {entity.key, *(name for name in names if name != "*")}
    for name in names:
        if name != "*" and name not in entity.by_name:
            raise UnknownProperty(name, entity.set, "$select")
    if "*" in names:
        return None
    return tuple(property_ for property_ in entity.properties if property_.name in selected)


def _parse_orderby(text: str, entity: EntityType) -> tuple[Order, ...]:
    order: list[Order] = []
    for item in text.split(","):
        name, *direction = item.split() or [""]
        if "(" in item or "/" in item:
            raise NotSupported("$orderby takes properties of the set only", "$orderby")
        if name not in entity.by_name:
            raise UnknownProperty(name, entity.set, "$orderby")
        if [entry.lower() for entry in direction] not in ([], ["asc"], ["desc"]):
            raise BadRequest(f"$orderby by {name} takes asc or desc", "$orderby")
        property_ = entity.by_name[name]
        if all(entry.property != property_ for entry in order):
            order.append(Order(property_, bool(direction) and direction[0].lower() == "desc"))
    return tuple(order)


def _parse_whole(stated: Mapping[str, str], name: str) -> int | None:
    if name not in stated:
        return None
    text = stated[name].strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise BadRequest(f"${name} takes a whole number from 0", f"${name}")
    return int(text)


def _parse_count(text: str) -> bool:
    if text.strip().lower() not in ("true", "false"):
        raise BadRequest("$count takes true or false", "$count")
    return text.strip().lower() == "true"
