"""Parse the path of a request below the feed's root. Pure.

https://docs.oasis-open.org/odata/odata/v4.01/os/part2-url-conventions/odata-v4.01-os-part2-url-conventions.html#sec_ResourcePath
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from integration.core.errors import Rejected
from integration.odata import literals
from integration.odata.model import EntityType
from integration.odata.refusals import BadRequest, NotFound, NotSupported


@dataclass(frozen=True, slots=True)
class ServiceDocument:
    """The feed's root."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """$metadata."""


@dataclass(frozen=True, slots=True)
class Collection:
    """An entity set."""

    entity: EntityType


@dataclass(frozen=True, slots=True)
class Count:
    """The number of entities of a set."""

    entity: EntityType


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity by its key."""

    entity: EntityType
    key: UUID


Address = ServiceDocument | Metadata | Collection | Count | Entity

_SET = re.compile(r"(?P<set>[^\W\d]\w{0,127})(?:\((?P<key>[^()]*)\))?")
_KEY = re.compile(rf"(?:(?P<name>[^\W\d]\w{{0,127}})=)?(?P<guid>{literals.GUID})")

_NOT_SUPPORTED = frozenset({"$batch", "$entity", "$all", "$root", "$crossjoin"})


def parse(path: str, sets: Mapping[str, EntityType]) -> Address:
    """Parse a path.

    `path`: what follows the root, decoded; `sets`: the entity types by the names of their sets.
    Raises Rejected: 400, 404, 501.
    """
    first, _, rest = path.strip("/").partition("/")
    if rest == "" and first in ("", "$metadata"):
        return Metadata() if first else ServiceDocument()
    if first.partition("(")[0] in _NOT_SUPPORTED:
        raise NotSupported(f"{first.partition('(')[0]} is not offered")
    found = _SET.fullmatch(first)
    entity = sets.get(found["set"]) if found else None
    if found is None or entity is None:
        raise NotFound("no such entity set; the service document lists all entity sets")
    if rest == "$count" and found["key"] is None:
        return Count(entity)
    if rest:
        raise _build_path_error(rest, entity)
    if found["key"] is None:
        return Collection(entity)
    return Entity(entity, _parse_key(found["key"], entity))


def _parse_key(text: str, entity: EntityType) -> UUID:
    match = _KEY.fullmatch(text.strip())
    if match is None or match["name"] not in (None, entity.key):
        raise BadRequest(f"the key of {entity.set} is one Edm.Guid without quotes", entity.key)
    key = literals.parse_guid(match["guid"])
    if key.int == 0:
        raise NotFound("an all-zero key is the key of no entity")
    return key


def _build_path_error(rest: str, entity: EntityType) -> Rejected:
    """Build the error for a path below a set or an entity: 501 if OData defines it, else 404."""
    name = rest.partition("/")[0]
    if name.startswith("$") or name in entity.by_name:
        return NotSupported(f"only $count is offered below {entity.set}; use $select")
    return NotFound(f"{entity.set} has nothing of that name")
