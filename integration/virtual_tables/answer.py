"""Respond to one OData request: address and method decide which operation handles it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue, MethodNotAllowed, Rejected, Unavailable
from integration.edits.guarded_write import build_conflict_error
from integration.journal.audit_entry import AccessAction, AccessKind, Reader
from integration.journal.audit_recorder import AuditRecorder
from integration.odata import addresses, bodies, headers, payload
from integration.odata.addresses import (
    Address,
    Collection,
    Count,
    Entity,
    Metadata,
    ServiceDocument,
)
from integration.odata.headers import Format, Preconditions, Preferences
from integration.odata.model import EntityType, EntityValues
from integration.odata.query import Query, build_next_link, parse
from integration.virtual_tables import audited, feed_documents, read, write
from integration.virtual_tables.data_routes import DATAVERSE, DataRoutes
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.feed_documents import FeedDocument
from integration.virtual_tables.feed_reader import FeedReader
from integration.virtual_tables.odata_request import ODataRequest, ODataResponse
from integration.virtual_tables.physical import read as rows
from integration.virtual_tables.physical import write as row_writes
from integration.virtual_tables.physical.read import FoundRow, RowAccess
from integration.virtual_tables.physical.rows import get_name, get_version
from integration.virtual_tables.physical.source import PhysicalTables, open_rows
from integration.virtual_tables.resource_rows import build_row
from integration.virtual_tables.write import FeedWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualTables:
    """What the feed needs.

    `entity_types` by resource type; `max_page_size` in rows; `timeout`: seconds that a response may
    take, which must be less than the 30 that the provider waits. `rows`: Dataverse's own rows, of
    the tables whose data route is `dataverse`; None: there is no Dataverse.
    """

    data_routes: DataRoutes
    entity_types: Mapping[str, MappedEntityType]
    reader: FeedReader
    writer: FeedWriter
    audit: AuditRecorder
    max_page_size: int
    timeout: float
    rows: PhysicalTables | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A request, parsed. `entity_types`: all that the feed shows; `target`: that of the address.
    `rows`: the rows of Dataverse that answer it; None: FHIR does."""

    request: ODataRequest
    reader: Reader
    query: Query
    format: Format
    preferences: Preferences
    condition: Preconditions
    entity_types: Sequence[EntityType]
    target: MappedEntityType | None
    rows: RowAccess | None

    @property
    def is_read(self) -> bool:
        """Whether the request changes nothing."""
        return self.request.method in ("GET", "HEAD")

    @property
    def entity_type(self) -> MappedEntityType:
        """The entity type of an address that names an entity set."""
        assert self.target is not None
        return self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """An entity as a response shows it. `name`: of the resource in the audit log."""

    values: EntityValues
    version: str
    name: str


async def answer_request(
    tables: VirtualTables, request: ODataRequest, reader: Reader
) -> ODataResponse:
    """Respond to a request. Raises Rejected, Unavailable or Misconfigured."""
    try:
        async with asyncio.timeout(tables.timeout):
            return await _answer(tables, request, reader)
    except TimeoutError:
        why = f"no answer within {tables.timeout:g} seconds"
        raise Unavailable(_name_source(tables, request), why) from None


def _name_source(tables: VirtualTables, request: ODataRequest) -> str:
    """Name the service that answers for the table of an address, as far as its route is known."""
    set_ = re.split(r"[(/]", request.path, maxsplit=1)[0]
    names = [name for name, shown in tables.entity_types.items() if shown.type.set == set_]
    routes = [tables.data_routes.get_known_route(name) for name in names]
    if tables.rows is not None and DATAVERSE in routes:
        return tables.rows.dataverse.upstream.name
    return tables.reader.fhir.upstream.name


async def _answer(tables: VirtualTables, request: ODataRequest, reader: Reader) -> ODataResponse:
    headers.check_versions(
        request.headers.get("odata-version"), request.headers.get("odata-maxversion")
    )
    routes = await tables.data_routes.get_routes()
    sets = {entity_type.type.set: entity_type for entity_type in tables.entity_types.values()}
    address = addresses.parse(request.path, {name: shown.type for name, shown in sets.items()})
    operations = _OPERATIONS[type(address)]
    methods = ("GET", "HEAD", *(name for name in operations if name != "GET"), "OPTIONS")
    if request.method == "OPTIONS":
        return ODataResponse(204, {**headers.build_headers(), "Allow": ", ".join(methods)})
    if request.method not in methods:
        raise MethodNotAllowed(*methods)
    # HEAD is a GET whose body the host leaves out: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2
    operation = operations["GET" if request.method == "HEAD" else request.method]
    call = _parse_call(request, reader, address, sets)
    table = call.target.entity.table if call.target else None
    activities = tables.reader.fhir.upstream.activities
    async with activities.track(action=operation.action, table=table):
        if call.target is not None and routes.get(call.target.resource) == DATAVERSE:
            access = await open_rows(tables.rows, call.target, tables.writer.new_run_id())
            call = replace(call, rows=access)
        return await _record_and_handle(tables, operation, call, address)


async def _record_and_handle(
    tables: VirtualTables, operation: _Operation, call: _Call, address: Address
) -> ODataResponse:
    if operation.kind is None:  # it shows nobody's data
        return await operation.handle(tables, call, address)
    asked = audited.Asked(
        kind=operation.kind, action=operation.audit_action, type=call.entity_type.resource
    )
    work = audited.handle_read if asked.action is AccessAction.READ else audited.handle_write
    return await work(
        tables.audit, call.reader, asked, lambda: operation.handle(tables, call, address)
    )


def _parse_call(
    request: ODataRequest,
    reader: Reader,
    address: Address,
    sets: Mapping[str, MappedEntityType],
) -> _Call:
    options = parse(request.query, address)
    has_format = not isinstance(address, Metadata | Count)
    accept = request.headers.get("accept")
    named = getattr(address, "entity", None)
    return _Call(
        request=request,
        reader=reader,
        query=options,
        format=headers.negotiate_format(accept, options.format) if has_format else Format(),
        preferences=headers.parse_preferences(request.headers.get("prefer")),
        condition=headers.parse_preconditions(request.headers),
        entity_types=[entity_type.type for entity_type in sets.values()],
        target=None if named is None else sets[named.set],
        rows=None,
    )


# -- the feed itself -------------------------------------------------------------------------------


async def _show_service_document(
    tables: VirtualTables, call: _Call, address: ServiceDocument
) -> ODataResponse:
    document = feed_documents.build_service_document(
        call.entity_types, call.request.root, call.format
    )
    return _respond_document(document, call, call.format.content_type)


async def _show_metadata(tables: VirtualTables, call: _Call, address: Metadata) -> ODataResponse:
    stated = call.request.headers
    format_ = headers.negotiate_metadata_format(
        stated.get("accept"), call.query.format, stated.get("odata-maxversion")
    )
    document = feed_documents.build_csdl(call.entity_types, format_)
    return _respond_document(document, call, headers.XML if format_ == "xml" else headers.JSON)


def _respond_document(document: FeedDocument, call: _Call, content_type: str) -> ODataResponse:
    """Respond with a document, unless the client has it."""
    etag = {"ETag": headers.format_etag(document.version)}
    cached = headers.parse_if_match(call.request.headers.get("if-none-match"))
    if cached is not None and cached.matches(document.version):
        return ODataResponse(304, {**headers.build_headers(), **etag})
    return ODataResponse(200, {**headers.build_headers(content_type), **etag}, document.body)


# -- reading ---------------------------------------------------------------------------------------


async def _read_collection(
    tables: VirtualTables, call: _Call, address: Collection
) -> ODataResponse:
    root, type_, query = call.request.root, call.entity_type.type, call.query
    size = min(call.preferences.page_size or tables.max_page_size, tables.max_page_size)
    if call.rows is not None:
        page = await rows.read_page(call.rows, query, size)
    else:
        run_id = tables.writer.new_run_id()
        page = await read.read_page(tables.reader, call.entity_type, query, size, run_id)
    next_link = None
    if page.token is not None:
        top = None if query.top is None else query.top - len(page.rows)
        next_link = build_next_link(f"{root}{type_.set}", call.request.query, page.token, top)
    body = payload.build_collection(
        page.rows,
        type_,
        root,
        call.format,
        select=query.select,
        count=page.count,
        next_link=next_link,
    )
    return replace(_respond_json(body, call, size), names=page.names)


async def _count_collection(tables: VirtualTables, call: _Call, address: Count) -> ODataResponse:
    """https://docs.oasis-open.org/odata/odata/v4.01/os/part2-url-conventions/odata-v4.01-os-part2-url-conventions.html#sec_AddressingtheCountofaCollection"""
    if call.rows is not None:
        count = await rows.count_rows(call.rows, call.query)
    else:
        run_id = tables.writer.new_run_id()
        count = await read.count_rows(tables.reader, call.entity_type, call.query, run_id)
    return ODataResponse(200, headers.build_headers("text/plain"), str(count).encode())


async def _read_entity(tables: VirtualTables, call: _Call, address: Entity) -> ODataResponse:
    shown = await _read_shown(tables, call, address)
    if shown is None:
        raise Rejected(Issue("not-found", "there is no entity with this key"), status=404)
    if not call.condition.matches(shown.version):
        raise build_conflict_error()
    if call.condition.is_known(shown.version):
        etag = {"ETag": headers.format_etag(shown.version)}
        return ODataResponse(304, {**headers.build_headers(), **etag}, names=(shown.name,))
    return _respond_entity(call, shown, 200)


async def _read_shown(tables: VirtualTables, call: _Call, address: Entity) -> _Shown | None:
    if call.rows is not None:
        found = await rows.read_row(call.rows, address.key)
        return None if found is None else _show_row(call.rows, found)
    run_id = tables.writer.new_run_id()
    resource = await read.read_entity(tables.reader, call.entity_type, address.key, run_id)
    return None if resource is None else await _show_resource(tables, call, resource, 200)


async def _show_resource(
    tables: VirtualTables, call: _Call, resource: Mapping[str, Any], status: int
) -> _Shown:
    shown = _list_shown(call) if _wants_body(call, status) else frozenset[str]()
    run_id, entity_type = tables.writer.new_run_id(), call.entity_type.select(shown)
    values = await build_row(tables.reader, entity_type, resource, run_id)
    version = str(resource.get("meta", {}).get("versionId", ""))
    name = f"{resource['resourceType']}/{resource['id']}"
    return _Shown(values=values, version=version, name=name)


def _show_row(access: RowAccess, found: FoundRow) -> _Shown:
    name = get_name(found.row, access.table)
    return _Shown(values=found.values, version=get_version(found.row), name=name)


# -- writing ---------------------------------------------------------------------------------------


async def _create_entity(tables: VirtualTables, call: _Call, address: Collection) -> ODataResponse:
    values = bodies.parse_new_entity(
        call.request.body, call.entity_type.type, numbers_as_text=_has_numbers_as_text(call)
    )
    if call.rows is not None:
        created = await row_writes.create_row(call.rows, tables.writer.new_key, values)
        return _respond_entity(call, _show_row(call.rows, created), 201)
    resource = await write.create(tables.writer, call.entity_type, values)
    return _respond_entity(call, await _show_resource(tables, call, resource, 201), 201)


async def _change_entity(tables: VirtualTables, call: _Call, address: Entity) -> ODataResponse:
    changes = bodies.parse_changes(
        call.request.body, call.entity_type.type, numbers_as_text=_has_numbers_as_text(call)
    )
    condition = call.condition
    if call.rows is not None:
        changed = await row_writes.change_row(call.rows, address.key, changes, condition)
        return _respond_entity(call, _show_row(call.rows, changed), 200)
    resource = await write.change(tables.writer, call.entity_type, address.key, changes, condition)
    return _respond_entity(call, await _show_resource(tables, call, resource, 200), 200)


async def _delete_entity(tables: VirtualTables, call: _Call, address: Entity) -> ODataResponse:
    if call.rows is not None:
        name = await row_writes.delete_row(call.rows, address.key, call.condition)
    else:
        name = await write.delete(tables.writer, call.entity_type, address.key, call.condition)
    return ODataResponse(204, names=(name,))


def _has_numbers_as_text(call: _Call) -> bool:
    stated = call.request.headers
    return headers.parse_body_format(stated.get("content-type"), stated.get("content-encoding"))


# -- responses -------------------------------------------------------------------------------------


def _respond_entity(call: _Call, shown: _Shown, status: int) -> ODataResponse:
    """Respond with an entity.

    After a write the body is sent only where the client wants it: after a create unless Prefer says
    `return=minimal`, after a change only if it says `return=representation`.
    """
    type_, root = call.entity_type.type, call.request.root
    stated = {"ETag": headers.format_etag(shown.version)}
    if status == 201:
        url = payload.format_entity_url(type_, shown.values[type_.key], root)  # type: ignore[arg-type]
        stated |= {"Location": url, "OData-EntityId": url}
    applied = None if call.is_read else call.preferences.format_return()
    if applied is not None:
        stated["Preference-Applied"] = applied
    if not _wants_body(call, status):
        no_body = {**headers.build_headers(), **stated}
        return ODataResponse(204, no_body, names=(shown.name,))
    body = payload.build_entity(
        shown.values, type_, root, call.format, select=call.query.select, version=shown.version
    )
    response = _respond_json(body, call)
    all_headers = {**response.headers, **stated}
    return ODataResponse(status, all_headers, response.body, (shown.name,))


def _list_shown(call: _Call) -> frozenset[str] | None:
    select = call.query.select
    return None if select is None else frozenset(property_.name for property_ in select)


def _wants_body(call: _Call, status: int) -> bool:
    if status == 201:
        return call.preferences.representation is not False
    return call.is_read or bool(call.preferences.representation)


def _respond_json(body: Any, call: _Call, page_size: int | None = None) -> ODataResponse:
    """Respond with JSON. `page_size`: the rows of a page, where Prefer may have named them."""
    applied = None if page_size is None else call.preferences.format_page_size(page_size)
    stated = {"Preference-Applied": applied} if applied else {}
    all_headers = {**headers.build_headers(call.format.content_type), **stated}
    return ODataResponse(200, all_headers, decimal_json.encode(body))


@dataclass(frozen=True, slots=True)
class _Operation:
    """`action`: what the activity log calls the requests to the FHIR server; `kind` and
    `audit_action`: what the audit log calls the whole."""

    handle: Callable[[VirtualTables, _Call, Any], Awaitable[ODataResponse]]
    action: str | None = None
    kind: AccessKind | None = None
    audit_action: AccessAction = AccessAction.READ


_OPERATIONS: Mapping[type[Address], Mapping[str, _Operation]] = {
    ServiceDocument: {"GET": _Operation(_show_service_document)},
    Metadata: {"GET": _Operation(_show_metadata)},
    Collection: {
        "GET": _Operation(_read_collection, "search", AccessKind.ROWS),
        "POST": _Operation(_create_entity, "create", AccessKind.ROW, AccessAction.CREATE),
    },
    Count: {"GET": _Operation(_count_collection, "count", AccessKind.COUNT)},
    Entity: {
        "GET": _Operation(_read_entity, None, AccessKind.ROW),
        "PATCH": _Operation(_change_entity, "change", AccessKind.ROW, AccessAction.UPDATE),
        "DELETE": _Operation(_delete_entity, "delete", AccessKind.ROW, AccessAction.DELETE),
    },
}
