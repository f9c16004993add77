"""One OData request, and what it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.core import decimal_json
from integration.core.activity import add_activity_context
from integration.core.errors import Issue, MethodNotAllowed, Rejected, Unavailable
from integration.odata import addresses, bodies, headers, metadata, payload, query
from integration.odata.addresses import (
    Address,
    Collection,
    Count,
    Entity,
    Metadata,
    ServiceDocument,
)
from integration.odata.headers import Format, Preferences
from integration.odata.model import EntityType, EntityValues
from integration.odata.query import Query
from integration.virtual_tables import read, write
from integration.virtual_tables.data_routes import DataRoutes
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.odata_request import ODataRequest, ODataResponse
from integration.virtual_tables.read import FeedReader
from integration.virtual_tables.write import FeedWriter

_METHODS: Mapping[type[Address], tuple[str, ...]] = {
    ServiceDocument: ("GET",),
    Metadata: ("GET",),
    Collection: ("GET", "POST"),
    Count: ("GET",),
    Entity: ("GET", "PATCH", "DELETE"),
}


# What the activity log calls the requests to the FHIR server.
_DOING: Mapping[tuple[type[Address], str], str] = {
    (Collection, "GET"): "search",
    (Count, "GET"): "count",
    (Collection, "POST"): "create",
    (Entity, "PATCH"): "change",
    (Entity, "DELETE"): "delete",
}


@dataclass(frozen=True, slots=True)
class VirtualTables:
    """What answering needs. `shapes` by resource type; `page`: rows of a page, at most; `seconds`
    that an answer may take: the provider waits 30."""

    data_routes: DataRoutes
    entity_types: Mapping[str, MappedEntityType]
    reader: FeedReader
    writer: FeedWriter
    max_page_size: int
    timeout: float


@dataclass(frozen=True, slots=True)
class _Request:
    """What a request turned out to mean."""

    asked: ODataRequest
    address: Address
    query: Query
    form: Format
    prefer: Preferences
    shape: MappedEntityType | None


async def answer_request(it: VirtualTables, asked: ODataRequest) -> ODataResponse:
    """Raises Rejected, Unavailable or Misconfigured."""
    try:
        async with asyncio.timeout(it.timeout):
            return await _answer(it, asked)
    except TimeoutError:
        why = f"no answer within {it.timeout:g} seconds"
        raise Unavailable(it.reader.fhir.upstream.name, why) from None


async def _answer(it: VirtualTables, asked: ODataRequest) -> ODataResponse:
    headers.check_versions(
        asked.headers.get("odata-version"), asked.headers.get("odata-maxversion")
    )
    virtual = await it.data_routes.list_virtual_types()
    shapes = {shape.type.set: shape for name, shape in it.entity_types.items() if name in virtual}
    types = {name: shape.type for name, shape in shapes.items()}
    address = addresses.parse(asked.path, types)
    if asked.method not in _METHODS[type(address)]:
        raise MethodNotAllowed(*_METHODS[type(address)])
    request = _read(asked, address, shapes)
    table = request.shape.entity.table if request.shape else None
    with add_activity_context(action=_DOING.get((type(address), asked.method)), table=table):
        return await _done(it, request, list(types.values()))


async def _done(it: VirtualTables, request: _Request, types: Sequence[EntityType]) -> ODataResponse:
    address, asked = request.address, request.asked
    match address, asked.method:
        case ServiceDocument(), _:
            return _json(metadata.build_service_document(types, asked.root, request.form), request)
        case Metadata(), _:
            return _metadata(types, request)
        case Collection(), "GET":
            return await _collection(it, request)
        case Collection(), _:
            return await _created(it, request)
        case Count(), _:
            return await _count(it, request)
        case Entity(), "GET":
            return await _entity(it, request)
        case Entity(), "PATCH":
            return await _changed(it, request)
    return await _deleted(it, request)


def _read(
    asked: ODataRequest, address: Address, shapes: Mapping[str, MappedEntityType]
) -> _Request:
    options = query.parse(asked.query, address)
    accept = asked.headers.get("accept")
    form = (
        Format()
        if isinstance(address, Metadata | Count)
        else headers.negotiate_format(accept, options.format)
    )
    of = getattr(address, "entity", None)
    shape = shapes[of.set] if of is not None else None
    return _Request(
        asked, address, options, form, headers.parse_preferences(asked.headers.get("prefer")), shape
    )


def _metadata(types: Sequence[EntityType], request: _Request) -> ODataResponse:
    asked = request.asked.headers
    form = headers.negotiate_metadata_format(
        asked.get("accept"), request.query.format, asked.get("odata-maxversion")
    )
    if form == "xml":
        return ODataResponse(
            200, headers.build_headers(headers.XML), metadata.build_csdl_xml(types)
        )
    body = decimal_json.encode(metadata.build_csdl_json(types))
    return ODataResponse(200, headers.build_headers(headers.JSON), body)


async def _collection(it: VirtualTables, request: _Request) -> ODataResponse:
    shape = _shape(request)
    wished = request.prefer.page_size
    size = min(wished, it.max_page_size) if wished else it.max_page_size
    page = await read.read_collection(it.reader, shape, request.query, size, it.writer.new_run_id())
    next_link = None
    if page.token is not None:
        top = request.query.top
        left = None if top is None else top - len(page.rows)
        own = f"{request.asked.root}{shape.type.set}"
        next_link = query.build_next_link(own, request.asked.query, page.token, left)
    body = payload.build_collection(
        page.rows,
        shape.type,
        request.asked.root,
        request.form,
        select=request.query.select,
        count=page.count,
        next_link=next_link,
    )
    return _json(body, request, applied=request.prefer.format_applied(size))


async def _count(it: VirtualTables, request: _Request) -> ODataResponse:
    """https://docs.oasis-open.org/odata/odata/v4.01/os/part2-url-conventions/odata-v4.01-os-part2-url-conventions.html#sec_AddressingtheCountofaCollection"""
    shape = _shape(request)
    number = await read.count_rows(it.reader, shape, request.query.filter, it.writer.new_run_id())
    return ODataResponse(200, headers.build_headers("text/plain"), str(number).encode())


async def _entity(it: VirtualTables, request: _Request) -> ODataResponse:
    shape, address = _shape(request), request.address
    assert isinstance(address, Entity)
    resource = await read.read_entity(it.reader, shape, address.key, it.writer.new_run_id())
    if resource is None:
        raise Rejected(Issue("not-found", "there is no entity with this key"), status=404)
    known = headers.parse_if_match(request.asked.headers.get("if-none-match"))
    if known is not None and known.matches(_version(resource)):
        return ODataResponse(
            304, {**headers.build_headers(), "ETag": headers.format_etag(_version(resource))}
        )
    return await _one(it, request, resource, 200)


async def _created(it: VirtualTables, request: _Request) -> ODataResponse:
    shape, asked = _shape(request), request.asked
    as_text = headers.has_numbers_as_text(asked.headers.get("content-type"))
    values = bodies.parse_new_entity(asked.body, shape.type, numbers_as_text=as_text)
    resource = await write.create(it.writer, shape, values)
    return await _one(it, request, resource, 201)


async def _changed(it: VirtualTables, request: _Request) -> ODataResponse:
    shape, asked, address = _shape(request), request.asked, request.address
    assert isinstance(address, Entity)
    as_text = headers.has_numbers_as_text(asked.headers.get("content-type"))
    values = bodies.parse_changes(asked.body, shape.type, numbers_as_text=as_text)
    condition = headers.parse_if_match(asked.headers.get("if-match"))
    resource = await write.change(it.writer, shape, address.key, values, condition)
    return await _one(it, request, resource, 200)


async def _deleted(it: VirtualTables, request: _Request) -> ODataResponse:
    shape, address = _shape(request), request.address
    assert isinstance(address, Entity)
    condition = headers.parse_if_match(request.asked.headers.get("if-match"))
    await write.delete(it.writer, shape, address.key, condition)
    return ODataResponse(204)


async def _one(
    it: VirtualTables, request: _Request, resource: Mapping[str, Any], status: int
) -> ODataResponse:
    """An entity; after a write only where it is wanted: always after a create, else by Prefer."""
    shape, root = _shape(request), request.asked.root
    (row,) = await read.build_rows(it.reader, shape, [resource])
    version = _version(resource)
    told = {"ETag": headers.format_etag(version)}
    if status == 201:
        own = payload.format_entity_url(shape.type, row[shape.type.key], root)  # type: ignore[arg-type]
        told |= {"Location": own, "OData-EntityId": own}
    wanted = request.prefer.representation
    is_silent = wanted is False if status == 201 else request.asked.method != "GET" and not wanted
    if applied := request.prefer.format_applied():
        told["Preference-Applied"] = applied
    if is_silent:
        return ODataResponse(204, {**headers.build_headers(), **told})
    shown: EntityValues = row
    body = payload.build_entity(
        shown, shape.type, root, request.form, select=request.query.select, version=version
    )
    made = _json(body, request)
    return ODataResponse(status, {**made.headers, **told}, made.body)


def _json(body: Any, request: _Request, applied: str | None = None) -> ODataResponse:
    said = {"Preference-Applied": applied} if applied else {}
    told = {**headers.build_headers(request.form.content_type), **said}
    return ODataResponse(200, told, decimal_json.encode(body))


def _shape(request: _Request) -> MappedEntityType:
    assert request.shape is not None  # the address names an entity set
    return request.shape


def _version(resource: Mapping[str, Any]) -> str:
    return str(resource.get("meta", {}).get("versionId", ""))
