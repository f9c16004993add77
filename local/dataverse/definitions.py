"""Read table definitions: paths below EntityDefinitions with $select, $filter and $expand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from local.dataverse import addresses, filters, metadata, refusals
from local.dataverse.filters import Compare, Literal, Logic, Name, Node
from local.dataverse.metadata import Document
from local.dataverse.tables import Catalog, Column, Table
from local.dataverse.wire import Call, Reply

NAMESPACE = "Microsoft.Dynamics.CRM."
BY_NAME = re.compile(r"\s*LogicalName\s*=\s*'([^']*)'\s*")
OPTION_SETS = ("OptionSet", "GlobalOptionSet")
COLLECTIONS = ("Attributes", "Keys", "ManyToOneRelationships")
# Properties of derived attribute types: without a cast they cannot be selected.
DERIVED_PROPERTIES = frozenset(
    (
        *("MaxLength", "Format", "FormatName", "DateTimeBehavior", "Targets"),
        *("MinValue", "MaxValue", "Precision"),
    )
)


def read_definitions(catalog: Catalog, call: Call) -> Reply:
    segment = addresses.parse_segment(call.resource)
    options = call.options
    if segment.key is None:
        found = [metadata.describe_table(table) for table in catalog.by_name.values()]
        return _reply_many(call, "EntityMetadata", found, options)
    table = find_table(catalog, segment.key)
    if not segment.rest:
        document = _select("EntityMetadata", metadata.describe_table(table), options)
        for name, inner in _parse_expand(options, COLLECTIONS).items():
            document[name] = _build_expanded(table, name, inner)
        return Reply(200, {"@odata.context": _build_context(call, "$entity"), **document})
    return _read_collection(call, table, segment.rest, options)


def find_table(catalog: Catalog, key: str) -> Table:
    """Find a table by LogicalName or MetadataId. Raises Refusal with the metadata API's errors."""
    match = BY_NAME.fullmatch(key)
    for table in catalog.by_name.values():
        if (match and match[1] == table.name) or metadata.describe_table(table)[
            "MetadataId"
        ] == key:
            return table
    if match:
        raise refusals.no_table(match[1])
    raise refusals.bad_key("EntityMetadata")


def _read_collection(call: Call, table: Table, rest: str, options: dict[str, str]) -> Reply:
    segment = addresses.parse_segment(rest)
    if segment.name != "Attributes":
        if segment.name not in COLLECTIONS or segment.key is not None or segment.rest:
            raise refusals.no_resource(segment.name)
        type_name = _find_type_name(segment.name)
        return _reply_many(call, type_name, _list_collection(table, segment.name), options)
    columns = find_columns(table, segment.key)
    cast = segment.rest or None
    if cast is not None and cast not in metadata.ALL_ATTRIBUTE_TYPES:
        raise refusals.no_resource(cast)
    documents = [
        _build_attribute(table, column, cast, options)
        for column in columns
        if cast is None or metadata.find_attribute_type(column) == cast
    ]
    type_name = (cast or NAMESPACE + "AttributeMetadata").removeprefix(NAMESPACE)
    if segment.key is None:
        matching = _filter_documents(type_name, documents, options)
        projected = [_project(type_name, document, options) for document in matching]
        return Reply(200, {"@odata.context": _build_context(call, type_name), "value": projected})
    if not documents:
        raise refusals.no_resource(segment.rest or segment.key)
    selected = _project(type_name, documents[0], options)
    return Reply(200, {"@odata.context": _build_context(call, "$entity"), **selected})


def find_columns(table: Table, key: str | None) -> list[Column]:
    ordered = [column for _, column in sorted(table.columns.items())]
    if key is None:
        return ordered
    match = BY_NAME.fullmatch(key)
    found = [
        column
        for column in ordered
        if (match and column.name == match[1])
        or metadata.describe_attribute(table, column)["MetadataId"] == key
    ]
    if not found:
        raise refusals.no_attribute(table.name, match[1] if match else key)
    return found


def _build_attribute(
    table: Table, column: Column, cast: str | None, options: dict[str, str]
) -> Document:
    """Build an attribute. Without a cast, only common properties can be selected or expanded."""
    document = metadata.describe_attribute(table, column)
    sets = _parse_expand(options, OPTION_SETS if cast else ())
    choices = metadata.describe_choices(table, column)
    for name, inner in sets.items():
        if name not in choices:
            raise refusals.no_property(
                name, metadata.find_attribute_type(column).removeprefix(NAMESPACE)
            )
        chosen = choices[name]
        document[name] = chosen if chosen is None else _select("OptionSet", chosen, inner)
    return document


def _build_expanded(table: Table, name: str, options: dict[str, str]) -> list[Document]:
    type_name = _find_type_name(name)
    matching = _filter_documents(type_name, _list_collection(table, name), options)
    return [_project(type_name, document, options) for document in matching]


def _list_collection(table: Table, name: str) -> list[Document]:
    if name == "Keys":
        return [metadata.describe_key(table, key) for key in table.keys]
    if name == "ManyToOneRelationships":
        return metadata.describe_relationships(table)
    return metadata.describe_attributes(table)


def _find_type_name(collection: str) -> str:
    names = {"Keys": "EntityKeyMetadata", "Attributes": "AttributeMetadata"}
    return names.get(collection, "OneToManyRelationshipMetadata")


def _reply_many(
    call: Call, type_name: str, documents: list[Document], options: dict[str, str]
) -> Reply:
    matching = _filter_documents(type_name, documents, options)
    projected = [_project(type_name, document, options) for document in matching]
    return Reply(200, {"@odata.context": _build_context(call, type_name), "value": projected})


def _project(type_name: str, document: Document, options: dict[str, str]) -> Document:
    """Return the selected properties, and those that `$expand` added."""
    expanded = {name: document[name] for name in OPTION_SETS if name in document}
    plain = {name: value for name, value in document.items() if name not in expanded}
    return {**_select(type_name, plain, options), **expanded}


def _select(type_name: str, document: Document, options: dict[str, str]) -> Document:
    if not options.get("$select"):
        return document
    chosen: Document = {}
    for name in (part.strip() for part in options["$select"].split(",")):
        if name not in document or (
            type_name == "AttributeMetadata" and name in DERIVED_PROPERTIES
        ):
            raise refusals.no_property(name, type_name)
        chosen[name] = document[name]
    annotations = {name: document[name] for name in ("@odata.type",) if name in document}
    return {**annotations, **chosen, "MetadataId": document["MetadataId"]}


def _filter_documents(
    type_name: str, documents: Iterable[Document], options: dict[str, str]
) -> list[Document]:
    if "$filter" not in options:
        return list(documents)
    node = filters.parse(options["$filter"])
    return [document for document in documents if _is_match(type_name, document, node)]


def _is_match(type_name: str, document: Document, node: Node) -> bool:
    match node:
        case Logic("and", left, right):
            return _is_match(type_name, document, left) and _is_match(type_name, document, right)
        case Logic("or", left, right):
            return _is_match(type_name, document, left) or _is_match(type_name, document, right)
        case Compare("eq", Name(name), Literal(_, value)):
            return bool(_read_property(type_name, document, name) == value)
        case Compare("ne", Name(name), Literal(_, value)):
            return bool(_read_property(type_name, document, name) != value)
    raise refusals.bad_query("Table definitions are filtered with eq, ne, and, or.")


def _read_property(type_name: str, document: Document, name: str) -> Any:
    """Read a property; `RequiredLevel/Value` is a path into a complex one."""
    first, _, second = name.partition("/")
    if first not in document:
        raise refusals.no_property(first, type_name)
    return document[first].get(second) if second else document[first]


def _parse_expand(options: dict[str, str], offered: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Parse `Attributes($select=A,B;$filter=…),Keys` to the options of each collection."""
    expanded: dict[str, dict[str, str]] = {}
    rest = options.get("$expand", "").strip()
    while rest:
        name = rest.partition(",")[0].partition("(")[0].strip()
        if name not in offered:
            raise refusals.no_property(name, "EntityMetadata")
        rest = rest[len(name) :].lstrip()
        inner = ""
        if rest.startswith("("):
            inner, rest = _split_brackets(rest)
        parts = (part.partition("=") for part in inner.split(";") if part.strip())
        expanded[name] = {option.strip(): value for option, _, value in parts}
        rest = rest.lstrip()
        if rest and not rest.startswith(","):
            raise refusals.bad_query("Syntax error in '$expand'.")
        rest = rest[1:].lstrip()
    return expanded


def _split_brackets(text: str) -> tuple[str, str]:
    depth = 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[1:position], text[position + 1 :]
    raise refusals.bad_query("Syntax error in '$expand'.")


def _build_context(call: Call, what: str) -> str:
    return f"{call.root}/$metadata#EntityDefinitions/{what}"
