"""Create, upsert, update and delete rows, each in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from local.dataverse import addresses, duplicates, metadata, refusals
from local.dataverse.addresses import Address
from local.dataverse.checks import TARGET, format_instant, parse_values
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
    def from_headers(cls, headers: Mapping[str, str]) -> Condition:
        # Microsoft's own samples send `If-None-Match: null`, which means no condition.
        conditions = {name: value for name, value in headers.items() if value.strip() != "null"}
        return cls(conditions.get("if-match"), conditions.get("if-none-match"))

    def check(self, address: Address, row: Row | None) -> None:
        if row is None:
            if self.match is not None:
                raise address.build_not_found()
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
    values = parse_values(table, payload, make_resolver(world))
    checked(table, values)
    row_id = values.get(table.primary_id) or world.new_id()
    if world.store.get(table, row_id):
        raise refusals.row_exists()
    return _insert(world, table, row_id, values)


def upsert(world: World, address: Address, payload: Values, condition: Condition) -> Written:
    """https://learn.microsoft.com/power-apps/developer/data-platform/use-upsert-insert-update-record"""
    row_id = address.find(world.store)
    row = world.store.get(address.table, row_id) if row_id else None
    condition.check(address, row)
    values = parse_values(address.table, payload, make_resolver(world))
    if row is not None:
        return _update(world, address, row, values)
    # On create, key columns in the body take precedence over those in the URL.
    values = {**address.key_values, **values}
    new_id = values.get(address.table.primary_id) or address.id or world.new_id()
    if world.store.get(address.table, new_id):
        raise refusals.row_exists()
    return _insert(world, address.table, new_id, values)


def delete(world: World, address: Address, condition: Condition) -> Row:
    row_id = address.find(world.store)
    row = world.store.get(address.table, row_id) if row_id else None
    if row is None:
        raise address.build_not_found()
    condition.check(address, row)
    with world.store.transaction():
        world.store.delete(address.table, row)
        _remove_links(world, address.table.name, row.id)
    return row


def disassociate(world: World, address: Address, navigation: str) -> Written:
    if navigation not in address.table.navigations:
        raise refusals.no_resource(navigation)
    return upsert(world, address, {f"{navigation}@odata.bind": None}, Condition(match="*"))


def make_resolver(world: World) -> Callable[[str], tuple[str, str]]:
    def resolve(url: str) -> tuple[str, str]:
        """Resolve `/accounts(…)`, `accounts(…)` or the full URL. The row must exist."""
        _, _, below = url.rpartition("/api/data/")
        path = below.partition("/")[2] if below != url else url.lstrip("/")
        segment = addresses.parse_segment(path)
        if segment.name == "entities":
            return "entity", _find_definition(world, segment.key or "")
        table = addresses.find_table(world.catalog, segment.name)
        if segment.key is None:
            raise refusals.bad_key(table.name)
        address = addresses.parse_address(table, segment.key)
        row_id = address.find(world.store)
        if row_id is None:
            raise address.build_not_found()
        return table.name, row_id

    return resolve


def _find_definition(world: World, key: str) -> str:
    """Return the MetadataId of the table with this key. Raises Refusal if there is none."""
    ids = (metadata.describe_table(table)["MetadataId"] for table in world.catalog.by_name.values())
    found = next((table_id for table_id in ids if table_id == key.lower()), None)
    if found is None:
        raise refusals.no_row("entity", key)
    return str(found)


def _insert(world: World, table: Table, row_id: str, values: Values) -> Written:
    now, user = format_instant(world.now()), world.parameters.user
    system = {
        table.primary_id: row_id,
        "createdon": now,
        "modifiedon": now,
        "_createdby_value": user,
        "_createdonbehalfby_value": world.parameters.on_behalf,
        "_modifiedby_value": user,
        "_modifiedonbehalfby_value": world.parameters.on_behalf,
        "_ownerid_value": user,
        "_owninguser_value": user,
        "_owningbusinessunit_value": BUSINESS_UNIT,
        "_organizationid_value": ORGANIZATION,
    }
    declared = {name: value for name, value in system.items() if name in table.properties}
    stateful = "statecode" in table.columns
    first = _resolve_status(table, {"statecode": 0}, {"statecode": 0, **values}) if stateful else {}
    row_values = _compose_columns(table, {**values, **declared, **first})
    duplicates.check_duplicates(world, table, row_id, row_values)
    return Written(world.store.put(table, row_id, row_values, "create"), True)


def _update(world: World, address: Address, row: Row, values: Values) -> Written:
    table = address.table
    # On update, the key columns of the URL are ignored in the body.
    fixed = {table.primary_id, *address.key_values}
    changes = {name: value for name, value in values.items() if name not in fixed}
    changes.update(_resolve_status(table, row.values, changes))
    system = {
        "modifiedon": format_instant(world.now()),
        "_modifiedby_value": world.parameters.user,
        "_modifiedonbehalfby_value": world.parameters.on_behalf,
    }
    row_values = _compose_columns(table, {**row.values, **changes, **system})
    duplicates.check_duplicates(world, table, row.id, row_values)
    return Written(world.store.put(table, row.id, row_values, "update"), False)


def _resolve_status(table: Table, current: Values, values: Values) -> Values:
    """Return statecode and statuscode. A state without a status gets the state's default status.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/update-delete-entities-using-web-api
    """
    state, status = values.get("statecode"), values.get("statuscode")
    if state is None and status is None:
        return {}
    state = current["statecode"] if state is None else state
    labels = {option.value: option.label for option in table.columns["statecode"].options}
    allowed = [o.value for o in table.columns["statuscode"].options if o.state == state]
    status = allowed[0] if status is None and allowed else status
    if state not in labels or status not in allowed:
        raise refusals.bad_status(table.name, labels.get(state, str(state)), status or 0)
    return {"statecode": state, "statuscode": status}


def _compose_columns(table: Table, values: Values) -> Values:
    for column in table.composed_columns:
        parts = [values[part] for part in column.composed_of if values.get(part)]
        values[column.name] = " ".join(parts) or None
    return values


def _remove_links(world: World, target: str, row_id: str) -> None:
    """Clear lookups to a deleted row, as cascade delete `RemoveLink` does, the default of custom
    relationships. Their rows get a new version.

    https://learn.microsoft.com/power-apps/developer/data-platform/configure-entity-relationship-cascading-behavior
    """
    for table in world.catalog.by_name.values():
        names = [
            column.property_name
            for column in table.columns.values()
            if target in column.targets and column.cascade_delete == "RemoveLink"
        ]
        for row in world.store.find_referring(table, row_id) if names else []:
            linked = [
                name
                for name in names
                if row.values.get(name) == row_id and row.values.get(name + TARGET) == target
            ]
            if linked:
                cleared = {key: None for name in linked for key in (name, name + TARGET)}
                world.store.put(table, row.id, {**row.values, **cleared}, "update")
