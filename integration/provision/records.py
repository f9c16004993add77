"""Publisher, solution, data source, events, role and user: what is lacking of them. Pure.

Each function gets the rows that are there, as the Web API tells them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from integration.core.errors import Misconfigured
from integration.provision.model import (
    SECRET,
    Existing,
    Feed,
    Item,
    ManualTask,
    Requirements,
    Role,
    Step,
    make_placeholder,
)

Row = Mapping[str, Any]
Rows = Sequence[Row]

# The table of the stock provider's data sources, and the columns of it that are filled:
# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/msdyn_odatav4ds
# That the request parameters are numbered from 1 and a header is one with `is…header` true is from
# there; how the paging mode and its older sibling go together is not said, so both say the same.
SOURCE = "msdyn_odatav4ds"
SOURCE_KEY = "msdyn_odatav4dsid"
SOURCE_COLUMNS = (
    "msdyn_name",
    "msdyn_uri",
    "msdyn_timeout",
    "msdyn_paginationtype",
    "msdyn_paginationmode",
    "msdyn_returninlinecount",
    "msdyn_isparameter1header",
    "msdyn_parameter1name",
    "msdyn_parameter1value",
)
SECRET_COLUMN = "msdyn_parameter1value"  # noqa: S105
SOURCE_NAME = "FHIR relay"

# The header by which a function app knows its callers:
# https://learn.microsoft.com/azure/azure-functions/function-keys-how-to
_KEY_HEADER = "x-functions-key"

EVENTS = ("isonexternalcreatedenabled", "isonexternalupdatedenabled", "isonexternaldeletedenabled")


def plan_publisher(requirements: Requirements, publishers: Rows) -> Iterator[Item]:
    """One with the prefix; where several have it, the first that may be used."""
    found = find_publisher(publishers)
    if found is not None:
        yield Existing(f"publisher {found['uniquename']}, with the prefix {requirements.prefix}")
        return
    if publishers:
        raise Misconfigured(f"the publisher with the prefix {requirements.prefix} is read-only")
    body = {
        "uniquename": f"{requirements.prefix}_fhir_relay",
        "friendlyname": "FHIR relay",
        "customizationprefix": requirements.prefix,
        "customizationoptionvalueprefix": derive_option_prefix(requirements.prefix),
    }
    yield Step(f"publisher with the prefix {requirements.prefix}", "POST", "publishers", body)


def find_publisher(publishers: Rows) -> Row | None:
    return next((row for row in publishers if not row.get("isreadonly")), None)


def derive_option_prefix(prefix: str) -> int:
    """A number from 10,000 to 99,999, the same for the same prefix."""
    digest = hashlib.sha256(prefix.encode()).digest()
    return 10_000 + int.from_bytes(digest[:4]) % 90_000


def plan_solution(
    requirements: Requirements, solutions: Rows, publisher: str | None
) -> Iterator[Item]:
    """Raises Misconfigured where nothing can go into the one that is there."""
    what = f"solution {requirements.solution}"
    if not solutions:
        owner = publisher or make_placeholder("the publisher")
        body = {
            "uniquename": requirements.solution,
            "friendlyname": "FHIR relay",
            "version": "1.0.0.0",
            "publisherid@odata.bind": f"/publishers({owner})",
        }
        yield Step(what, "POST", "solutions", body)
        return
    found = solutions[0]
    if found.get("ismanaged"):
        raise Misconfigured(f"{what} is managed, so nothing can be added to it: name another")
    if publisher is not None and found.get("_publisherid_value") != publisher:
        raise Misconfigured(
            f"{what} is of another publisher than the one with the prefix {requirements.prefix}: "
            "name another solution, or set MAP_PREFIX to that publisher's prefix"
        )
    yield Existing(what)


def plan_data_source(feed: Feed, sources: Rows) -> Iterator[Item]:
    """`sources` show the key as SECRET where it is the one that is wanted.

    Not put into the solution: a key should not travel in what is exported.
    """
    body = {
        "msdyn_name": SOURCE_NAME,
        "msdyn_uri": feed.address,
        "msdyn_timeout": feed.timeout,
        "msdyn_paginationtype": int(feed.paging == "server"),
        "msdyn_paginationmode": feed.paging == "server",
        # Each list would have the FHIR server count all that there is.
        "msdyn_returninlinecount": False,
        "msdyn_isparameter1header": True,
        "msdyn_parameter1name": _KEY_HEADER,
        SECRET_COLUMN: SECRET,
    }
    found = find_data_source(sources)
    if found is None:
        yield Step(f"data source {SOURCE_NAME}, for {feed.address}", "POST", SOURCE, body)
        return
    other = {name: value for name, value in body.items() if found.get(name) != value}
    if other:
        what = f"data source {SOURCE_NAME}: {', '.join(other)}"
        yield Step(what, "PATCH", f"{SOURCE}({found[SOURCE_KEY]})", other)
    else:
        yield Existing(f"data source {SOURCE_NAME}, for {feed.address}")


def find_data_source(sources: Rows) -> Row | None:
    return next((row for row in sources if row.get("msdyn_name") == SOURCE_NAME), None)


def plan_events(
    requirements: Requirements, ids: Mapping[str, str | None], rows: Rows
) -> Iterator[Item]:
    """By the MetadataId of each virtual table.

    https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/enable-virtual-table-event-support
    """
    existing = {row.get("_extensionofrecordid_value"): row for row in rows}
    on = dict.fromkeys(EVENTS, True)
    for table in requirements.virtual_tables:
        table_id = ids[table.name]
        what = f"external events of {table.name}"
        found = existing.get(table_id) if table_id is not None else None
        if found is None:
            record = table_id or make_placeholder(table.name)
            body = {
                "name": f"{table.label} events",
                **on,
                "extensionofrecordid@odata.bind": f"entities({record})",
            }
            yield Step(what, "POST", "virtualentitymetadatas", body, requirements.solution)
        elif not all(found.get(name) for name in EVENTS):
            path = f"virtualentitymetadatas({found['virtualentitymetadataid']})"
            yield Step(what, "PATCH", path, on)
        else:
            yield Existing(what)


def plan_role(requirements: Requirements, unit: str, roles: Rows) -> Iterator[Item]:
    what = f"role {requirements.role.name}"
    if roles:
        yield Existing(what)
        return
    body = {"name": requirements.role.name, "businessunitid@odata.bind": f"/businessunits({unit})"}
    yield Step(what, "POST", "roles", body, requirements.solution)


def plan_user(requirements: Requirements, unit: str, users: Rows) -> Iterator[Item]:
    """https://learn.microsoft.com/power-platform/admin/manage-application-users"""
    if requirements.identity is None:
        yield ManualTask("no application user: set AZURE_CLIENT_ID, or say --identity")
        return
    what = f"application user of {requirements.identity}"
    if not users:
        body = {
            "applicationid": requirements.identity,
            "businessunitid@odata.bind": f"/businessunits({unit})",
        }
        yield Step(what, "POST", "systemusers", body)
    elif users[0].get("isdisabled"):
        yield ManualTask(f"{what} is disabled")
    else:
        yield Existing(what)


def list_privilege_names(role: Role, schemas: Mapping[str, str]) -> dict[str, str]:
    """What is granted, by the names that privileges have in lower case: `prvRead` and the schema
    name of the table. Dataverse names them so; no page promises it."""
    return {name.lower(): name for name in (*role.platform, *_list_table_privileges(role, schemas))}


def _list_table_privileges(role: Role, schemas: Mapping[str, str]) -> Iterator[str]:
    for table, verbs in role.tables.items():
        yield from (f"prv{verb}{schemas.get(table, table)}" for verb in verbs)


def plan_privileges(
    requirements: Requirements,
    schemas: Mapping[str, str],
    privilege_ids: Mapping[str, str],
    role_id: str | None,
    granted: frozenset[str],
) -> Iterator[Item]:
    """`known`: privileges' ids by name in lower case; `granted`: ids that the role has.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/addprivilegesrole
    """
    names = list_privilege_names(requirements.role, schemas)
    # In a dry run a table may not be there yet, and its privileges neither.
    new = [table.name for table in requirements.virtual_tables if table.name not in schemas]
    coming = {low: make_placeholder(names[low]) for low in names if low.endswith(tuple(new))}
    ids = {**coming, **privilege_ids}
    unknown = [name for low, name in names.items() if low not in ids]
    missing = [ids[low] for low in names if low in ids and ids[low] not in granted]
    existing = len(names) - len(unknown) - len(missing)
    if existing:
        yield Existing(f"{existing} privileges of role {requirements.role.name}")
    if missing:
        body = {
            "Privileges": [
                {"PrivilegeId": privilege_id, "Depth": "Global"} for privilege_id in missing
            ]
        }
        role = role_id or make_placeholder("the role")
        path = f"roles({role})/Microsoft.Dynamics.CRM.AddPrivilegesRole"
        what = f"{len(missing)} privileges of role {requirements.role.name}"
        yield Step(what, "POST", path, body)
    if unknown:
        yield ManualTask(f"the organisation has no privilege {', '.join(unknown)}")


def plan_assignment(
    requirements: Requirements, base: str, user: str | None, role: str | None, held: frozenset[str]
) -> Iterator[Item]:
    if requirements.identity is None:
        return
    what = f"role {requirements.role.name} of the application user"
    if role is not None and role in held:
        yield Existing(what)
        return
    who, which = (
        user or make_placeholder("the application user"),
        role or make_placeholder("the role"),
    )
    path = f"systemusers({who})/systemuserroles_association/$ref"
    yield Step(what, "POST", path, {"@odata.id": f"{base}/roles({which})"})


def plan_publication(tables: Sequence[str]) -> Iterator[Item]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/publish-customizations"""
    if tables:
        listed = "".join(f"<entity>{name}</entity>" for name in tables)
        xml = f"<importexportxml><entities>{listed}</entities></importexportxml>"
        yield Step("publication of the changes", "POST", "PublishXml", {"ParameterXml": xml})
