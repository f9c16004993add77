"""The query options of a request. Pure.

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

_OFFERED: dict[type[Address], frozenset[str]] = {
    Collection: frozenset("filter select orderby top skip count skiptoken format".split()),
    Count: frozenset({"filter"}),
    Entity: frozenset({"select", "format"}),
}
_KNOWN = _OFFERED[Collection]
_NOT_OFFERED = frozenset({"expand", "search", "apply", "compute"})
# Nobody leaves the $ of these away: without it they may be anybody's names.
_NOT_OFFERED_WITH_SIGN = frozenset({"deltatoken", "id", "index", "levels", "schemaversion"})


@dataclass(frozen=True, slots=True)
class Query:
    """`select`: the properties asked for, with the key; None for all. `token` is $skiptoken."""

    filter: Expression | None = None
    select: tuple[Property, ...] | None = None
    order_by: tuple[Order, ...] = ()
    top: int | None = None
    skip: int = 0
    count: bool = False
    skip_token: str | None = None
    format: str | None = None


def parse(text: str, address: Address) -> Query:
    """What follows the question mark, as it came, percent-encoded. Raises Rejected."""
    stated = _options(text)
    for name in stated:
        if name not in _OFFERED.get(type(address), {"format"}):
            raise BadRequest(f"${name} does not belong to this address", f"${name}")
    if not isinstance(address, Collection | Count | Entity):
        return Query(format=stated.get("format"))
    entity = address.entity
    return Query(
        filter=filters.parse(stated["filter"], entity) if "filter" in stated else None,
        select=_select(stated["select"], entity) if "select" in stated else None,
        order_by=_order(stated["orderby"], entity) if "orderby" in stated else (),
        top=_whole(stated, "top"),
        skip=_whole(stated, "skip") or 0,
        count=_count(stated.get("count", "false")),
        skip_token=stated.get("skiptoken"),
        format=stated.get("format"),
    )


def build_next_link(address: str, text: str, token: str, top: int | None = None) -> str:
    """The address of what comes after a page: the same options with `token`, and with as much of
    $top as is left. Only our own options: others may be somebody's key."""
    own = {**_options(text), "skiptoken": token}
    own.pop("skip", None)
    if "top" in own:
        own["top"] = str(top or 0)
    options = (f"${name}={quote(value, safe='')}" for name, value in own.items())
    return f"{address}?{'&'.join(options)}"


def _options(text: str) -> dict[str, str]:
    """The system options by their names without $, in any case; each at most once."""
    if len(text) > MAX_LENGTH:
        raise Rejected(Issue("too-long", f"over {MAX_LENGTH:,} characters of query"), status=414)
    found: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        raw, _, encoded = part.partition("=")
        stated = _decoded(raw)
        name = stated.removeprefix("$").lower()
        if not _is_system(stated, name):
            continue
        if name in found:
            raise BadRequest(f"${name} is given twice", f"${name}")
        found[name] = _decoded(encoded)
    return found


def _is_system(stated: str, name: str) -> bool:
    """Whether it is an option of ours; OData 4.01 lets the $ be left away. Parameter aliases and
    custom options are nobody's concern here."""
    with_sign = stated.startswith("$")
    if name in _KNOWN:
        return True
    if name in _NOT_OFFERED or (with_sign and name in _NOT_OFFERED_WITH_SIGN):
        raise NotSupported(f"${name} is not offered", f"${name}")
    if with_sign:
        named = f"${name}" if is_name(name) else None
        raise BadRequest(f"{named or 'a query option'} is no option of OData", named)
    return False


def _decoded(text: str) -> str:
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("a query option that is not UTF-8") from None


def _select(text: str, entity: EntityType) -> tuple[Property, ...] | None:
    names = [name.strip() for name in text.split(",")]
    wanted = {entity.key, *(name for name in names if name != "*")}
    for name in names:
        if name != "*" and name not in entity.by_name:
            raise UnknownProperty(name, entity.set, "$select")
    if "*" in names:
        return None
    return tuple(each for each in entity.properties if each.name in wanted)


def _order(text: str, entity: EntityType) -> tuple[Order, ...]:
    order: list[Order] = []
    for item in text.split(","):
        name, *direction = item.split() or [""]
        if "(" in item or "/" in item:
            raise NotSupported("$orderby takes properties of the set only", "$orderby")
        if name not in entity.by_name:
            raise UnknownProperty(name, entity.set, "$orderby")
        if [each.lower() for each in direction] not in ([], ["asc"], ["desc"]):
            raise BadRequest(f"$orderby by {name} takes asc or desc", "$orderby")
        known = entity.by_name[name]
        if all(each.property != known for each in order):
            order.append(Order(known, bool(direction) and direction[0].lower() == "desc"))
    return tuple(order)


def _whole(stated: Mapping[str, str], name: str) -> int | None:
    if name not in stated:
        return None
    text = stated[name].strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise BadRequest(f"${name} takes a whole number from 0", f"${name}")
    return int(text)


def _count(text: str) -> bool:
    if text.strip().lower() not in ("true", "false"):
        raise BadRequest("$count takes true or false", "$count")
    return text.strip().lower() == "true"
