"""Create, upsert, update and delete: what happens to a row, in one transaction each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from local.dataverse import addresses, duplicates, metadata, refusals
from local.dataverse.addresses import Address
from local.dataverse.checks import TARGET, stamp, values_of
from local.dataverse.organization import BUSINESS_UNIT, ORGANIZATION
from local.dataverse.rows import Row, Values
from local.dataverse.tables import Table
from local.dataverse.world import World


@dataclass(frozen=True, slots=True)
class Written:
    row: Row
    created: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """`If-Match` and `If-None-Match`.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/perform-conditional-operations-using-web-api
    """

    match: str | None = None
    none_match: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Condition:
        # Microsoft's own samples send `If-None-Match: null` and mean no condition by it.
        stated = {name: value for name, value in headers.items() if value.strip() != "null"}
        return cls(stated.get("if-match"), stated.get("if-none-match"))

    def check(self, at: Address, row: Row | None) -> None:
        if row is None:
            if self.match is not None:
                raise at.absent()
            return
        if self.none_match == "*":
            raise refusals.row_exists()
        if self.match is not None and self.match not in ("*", row.etag):
            raise refusals.version_differs()


def create(
    world: World,
    table: Table,
    payload: Values,
    checked: Callable[[Table, Values], object] = lambda table, values: None,
) -> Written:
    values = values_of(table, payload, resolver(world))
    checked(table, values)
    row_id = values.get(table.primary_id) or world.new_id()
    if world.store.get(table, row_id):
        raise refusals.row_exists()
    return _insert(world, table, row_id, values)


def upsert(world: World, at: Address, payload: Values, condition: Condition) -> Written:
    """https://learn.microsoft.com/power-apps/developer/data-platform/use-upsert-insert-update-record"""
    row_id = at.find(world.store)
    row = world.store.get(at.table, row_id) if row_id else None
    condition.check(at, row)
    values = values_of(at.table, payload, resolver(world))
    if row is not None:
        return _update(world, at, row, values)
    # On create the key columns of the body are used instead of those of the URL.
    values = {**at.key_values, **values}
    new_id = values.get(at.table.primary_id) or at.id or world.new_id()
    if world.store.get(at.table, new_id):
        raise refusals.row_exists()
    return _insert(world, at.table, new_id, values)


def delete(world: World, at: Address, condition: Condition) -> Row:
    row_id = at.find(world.store)
    row = world.store.get(at.table, row_id) if row_id else None
    if row is None:
        raise at.absent()
    condition.check(at, row)
    with world.store.transaction():
        world.store.delete(at.table, row)
        _remove_links(world, at.table.name, row.id)
    return row


def disassociate(world: World, at: Address, navigation: str) -> Written:
    if navigation not in at.table.navigations:
        raise refusals.no_resource(navigation)
    return upsert(world, at, {f"{navigation}@odata.bind": None}, Condition(match="*"))


def resolver(world: World) -> Callable[[str], tuple[str, str]]:
    def resolve(url: str) -> tuple[str, str]:
        """`/accounts(…)`, `accounts(…)` or the full URL: the row must exist."""
        _, _, below = url.rpartition("/api/data/")
        path = below.partition("/")[2] if below != url else url.lstrip("/")
        segment = addresses.split(path)
        if segment.name == "entities":
            return "entity", _definition(world, segment.key or "")
        table = addresses.table_of(world.catalog, segment.name)
        if segment.key is None:
            raise refusals.bad_key(table.name)
        at = addresses.address(table, segment.key)
        row_id = at.find(world.store)
        if row_id is None:
            raise at.absent()
        return table.name, row_id

    return resolve


def _definition(world: World, key: str) -> str:
    """A table as a row of the tables, by its MetadataId."""
    known = (metadata.entity(table)["MetadataId"] for table in world.catalog.by_name.values())
    found = next((each for each in known if each == key.lower()), None)
    if found is None:
        raise refusals.no_row("entity", key)
    return str(found)


def _insert(world: World, table: Table, row_id: str, values: Values) -> Written:
    now, user = stamp(world.now()), world.wishes.user
    system = {
        table.primary_id: row_id,
        "createdon": now,
        "modifiedon": now,
        "_createdby_value": user,
        "_createdonbehalfby_value": world.wishes.on_behalf,
        "_modifiedby_value": user,
        "_modifiedonbehalfby_value": world.wishes.on_behalf,
        "_ownerid_value": user,
        "_owninguser_value": user,
        "_owningbusinessunit_value": BUSINESS_UNIT,
        "_organizationid_value": ORGANIZATION,
    }
    known = {name: value for name, value in system.items() if name in table.properties}
    stateful = "statecode" in table.columns
    first = _status(table, {"statecode": 0}, {"statecode": 0, **values}) if stateful else {}
    whole = _composed(table, {**values, **known, **first})
    duplicates.check(world, table, row_id, whole)
    return Written(world.store.put(table, row_id, whole, "create"), True)


def _update(world: World, at: Address, row: Row, values: Values) -> Written:
    table = at.table
    # On update the key columns that found the row are ignored in the body.
    fixed = {table.primary_id, *at.key_values}
    changes = {name: value for name, value in values.items() if name not in fixed}
    changes.update(_status(table, row.values, changes))
    system = {
        "modifiedon": stamp(world.now()),
        "_modifiedby_value": world.wishes.user,
        "_modifiedonbehalfby_value": world.wishes.on_behalf,
    }
    whole = _composed(table, {**row.values, **changes, **system})
    duplicates.check(world, table, row.id, whole)
    return Written(world.store.put(table, row.id, whole, "update"), False)


def _status(table: Table, current: Values, values: Values) -> Values:
    """A state without a status takes the state's default; a pair must belong together.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/update-delete-entities-using-web-api
    """
    state, status = values.get("statecode"), values.get("statuscode")
    if state is None and status is None:
        return {}
    state = current["statecode"] if state is None else state
    labels = {option.value: option.label for option in table.columns["statecode"].options}
    fitting = [o.value for o in table.columns["statuscode"].options if o.state == state]
    status = fitting[0] if status is None and fitting else status
    if state not in labels or status not in fitting:
        raise refusals.bad_status(table.name, labels.get(state, str(state)), status or 0)
    return {"statecode": state, "statuscode": status}


def _composed(table: Table, values: Values) -> Values:
    for column in table.composed:
        parts = [values[part] for part in column.composed_of if values.get(part)]
        values[column.name] = " ".join(parts) or None
    return values


def _remove_links(world: World, target: str, row_id: str) -> None:
    """Lookups to a deleted row become empty, as cascade delete `RemoveLink` says."""
    for table in world.catalog.by_name.values():
        names = [
            column.property_name
            for column in table.columns.values()
            if target in column.targets and column.cascade_delete == "RemoveLink"
        ]
        for row in world.store.referring(table, row_id) if names else []:
            linked = [
                name
                for name in names
                if row.values.get(name) == row_id and row.values.get(name + TARGET) == target
            ]
            if linked:
                cleared = {key: None for name in linked for key in (name, name + TARGET)}
                world.store.put(table, row.id, {**row.values, **cleared}, "update")
