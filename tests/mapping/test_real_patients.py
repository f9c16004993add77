"""Patients and their surroundings from elsewhere, read in place from the folder that BUNDLES_DIR names.

Each becomes rows without an exception, and the stand-in for Dataverse takes them: every patient and
related person, and of the thousands of practitioners and organizations one of each shape.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
import pytest

from integration.core import decimal_json
from integration.core.model import Column
from integration.mapping import engine, load
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.model import ChildRow, Concept, EntityMap, Lookup, MappedRows
from integration.mapping.primary_keys import derive_primary_key
from local.dataverse import tables
from local.dataverse.app import create_app
from tests.builders import TODAY
from tests.mapping import real
from tests.mapping.tenant import PREFIX, load_all_columns

KINDS = ("Patient", "Practitioner", "RelatedPerson", "Organization")
MAPS = {
    "healthcare": ["practitioner", "related_person", "organization", "us_core"],
    "plain": ["practitioner", "related_person", "organization"],
}


@pytest.fixture(scope="module")
def resources() -> list[real.Resource]:
    found = real.load_resources(KINDS)
    assert {resource["resourceType"] for resource in found} == {*KINDS}
    return found


@pytest.fixture
async def dataverse() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(additions=tables.read_additions(prefix=PREFIX))
    address = "http://dataverse/api/data/v9.2/"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=address) as http:
        yield http
    app.close()


def _load_maps(set_: str) -> Mapping[str, EntityMap]:
    found = load.load_maps(set_, PREFIX, None, MAPS[set_])
    assert found.broken == {}
    assert found.entities.keys() >= {*KINDS}
    return found.entities


@pytest.mark.parametrize("set_", MAPS)
async def test_every_real_resource_becomes_rows_that_dataverse_takes(
    set_: str, resources: list[real.Resource], dataverse: httpx.AsyncClient
) -> None:
    maps = _load_maps(set_)
    writer = _Writer(dataverse, maps)
    shapes = set()
    for resource in resources:
        entity = maps[resource["resourceType"]]
        mapped = engine.map_resource(entity, resource, load_all_columns(), today=TODAY)
        shape = _summarize_shape(entity, mapped)
        if entity.resource in ("Patient", "RelatedPerson") or shape not in shapes:
            shapes.add(shape)
            await writer.write(entity, resource["id"], mapped)
    assert writer.rows > len(shapes)


def _summarize_shape(entity: EntityMap, mapped: MappedRows) -> Any:
    """Which columns are filled, of the row and of its children."""
    rows = [mapped.values, *(child.values for child in mapped.children)]
    filled = (frozenset(n for n, value in row.items() if value is not None) for row in rows)
    return entity.resource, frozenset(filled)


class _Writer:
    """Writes rows one by one, each after those that it refers to. No writer of ours: it knows only
    what Dataverse says of its columns."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        maps: Mapping[str, EntityMap],
    ) -> None:
        self.http = http
        self.maps = maps
        self.columns = load_all_columns()
        self.rows = 0
        self._existing: set[str] = set()

    async def write(self, entity: EntityMap, identifier: str, mapped: MappedRows) -> None:
        key = derive_primary_key(entity.resource, identifier)
        address = f"{entity.entity_set}({key})"
        body = await self._build_body(entity.table, mapped.values)
        state = {name: body.pop(name) for name in ("statecode",) if name in body}
        await self._put(address, body)
        if state.get("statecode"):
            await self._put(address, state)
        for child in mapped.children:
            await self._write_child(entity, address, child)

    async def _write_child(self, entity: EntityMap, parent: str, child: ChildRow) -> None:
        map_ = child.expand_map
        body = await self._build_body(map_.table, child.values)
        column = self.columns[map_.table][map_.parent]
        body[f"{column.targets[entity.table]}@odata.bind"] = f"/{parent}"
        match = decimal_json.encode([str(child.values[name]) for name in map_.match])
        key = uuid5(NAMESPACE_URL, f"{parent}/{map_.table}/{match.decode()}")
        await self._put(f"{map_.entity_set}({key})", body)

    async def _build_body(self, table: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for name, value in columns.items():
            column = self.columns[table][name]
            match value:
                case Lookup():
                    target = await self._find_target(column, value)
                    if target is not None:
                        navigation, address = target
                        body[f"{navigation}@odata.bind"] = f"/{address}"
                case Concept():
                    address = await self._write_concept(value)
                    body[f"{column.targets[CONCEPT_TABLE.table]}@odata.bind"] = f"/{address}"
                case None if column.targets:
                    pass  # nothing to clear in a new row
                case _:
                    body[name] = value
        return body

    async def _find_target(self, column: Column, link: Lookup) -> tuple[str, str] | None:
        """The row of another resource, bare where it is not written yet; None for a resource
        without a table, or whose table the lookup cannot show."""
        kind, _, identifier = link.resource.partition("/")
        entity = self.maps.get(kind)
        if entity is None or entity.table not in column.targets:
            return None
        address = f"{entity.entity_set}({derive_primary_key(kind, identifier)})"
        if address not in self._existing:
            await self._put(address, {entity.id_column: identifier[:38]})
        return column.targets[entity.table], address

    async def _write_concept(self, concept: Concept) -> str:
        key = uuid5(NAMESPACE_URL, f"{concept.type}/{concept.code}")
        address = f"{CONCEPT_TABLE.entity_set}({key})"
        if address not in self._existing:
            await self._put(address, CONCEPT_TABLE.build_row(concept))
        return address

    async def _put(self, address: str, body: Mapping[str, Any]) -> None:
        response = await self.http.patch(
            address,
            content=decimal_json.encode(body),
            headers={"content-type": "application/json; charset=utf-8"},
        )
        assert response.status_code in (201, 204), f"{address}: {response.text}"
        self._existing.add(address)
        self.rows += 1
