"""Plan the steps for publisher, solution, data source, external events, role and user. Pure.

Each function gets the rows that exist, as the Web API returns them, and yields what is missing.
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

# The table of the data sources of Dataverse's own OData v4 provider, and the columns we write:
# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/msdyn_odatav4ds
# It says that request parameters are numbered from 1, and that `is…header` true makes one a header.
# It does not say how pagination mode and pagination type work together, so we set both alike.
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

# The header with a function key:
# https://learn.microsoft.com/azure/azure-functions/function-keys-how-to
_KEY_HEADER = "x-functions-key"

EVENTS = ("isonexternalcreatedenabled", "isonexternalupdatedenabled", "isonexternaldeletedenabled")


def plan_publisher(requirements: Requirements, publishers: Rows) -> Iterator[Item]:
    """Plan a publisher with the prefix. If several have it, use the first that is not read-only.

    Raises Misconfigured if all are read-only.
    """
    found = find_publisher(publishers)
    if found is not None:
        yield Existing(f"publisher {found['uniquename']}, with the prefix {requirements.prefix}")
        return
    if publishers:
        raise Misconfigured(
            f"the publisher with the prefix {requirements.prefix} is read-only: set MAP_PREFIX to "
            "the prefix of another"
        )
    body = {
        "uniquename": f"{requirements.prefix}_fhir_relay",
        "friendlyname": "FHIR relay",
        "customizationprefix": requirements.prefix,
        "customizationoptionvalueprefix": derive_option_prefix(requirements.prefix),
    }
    yield Step(
        description=f"publisher with the prefix {requirements.prefix}",
        method="POST",
        path="publishers",
        body=body,
    )


def find_publisher(publishers: Rows) -> Row | None:
    return next((row for row in publishers if not row.get("isreadonly")), None)


def derive_option_prefix(prefix: str) -> int:
    """Return a number from 10,000 to 99,999 that depends only on the prefix."""
    digest = hashlib.sha256(prefix.encode()).digest()
    return 10_000 + int.from_bytes(digest[:4]) % 90_000


def plan_solution(
    requirements: Requirements, solutions: Rows, publisher: str | None
) -> Iterator[Item]:
    """Plan the solution. Raises Misconfigured if nothing can be added to the existing one."""
    what = f"solution {requirements.solution}"
    if not solutions:
        owner = publisher or make_placeholder("the publisher")
        body = {
            "uniquename": requirements.solution,
            "friendlyname": "FHIR relay",
            "version": "1.0.0.0",
            "publisherid@odata.bind": f"/publishers({owner})",
        }
        yield Step(description=what, method="POST", path="solutions", body=body)
        return
    found = solutions[0]
    if found.get("ismanaged"):
        raise Misconfigured(
            f"{what} is managed, so nothing can be added to it: name another one with --solution"
        )
    if publisher is not None and found.get("_publisherid_value") != publisher:
        raise Misconfigured(
            f"{what} is of another publisher than the one with the prefix {requirements.prefix}: "
            "name another one with --solution, or set MAP_PREFIX to that publisher's prefix"
        )
    yield Existing(what)


def plan_data_source(feed: Feed, sources: Rows) -> Iterator[Item]:
    """Plan the data source. In `sources`, SECRET stands for the key if it is the right one.

    The data source is not added to the solution: an exported solution should hold no key.
    """
    body = {
        "msdyn_name": SOURCE_NAME,
        "msdyn_uri": feed.address,
        "msdyn_timeout": feed.timeout,
        "msdyn_paginationtype": int(feed.paging == "server"),
        "msdyn_paginationmode": feed.paging == "server",
        # With it, each list would make the FHIR server count all resources of the type.
        "msdyn_returninlinecount": False,
        "msdyn_isparameter1header": True,
        "msdyn_parameter1name": _KEY_HEADER,
        SECRET_COLUMN: SECRET,
    }
    found = find_data_source(sources)
    if found is None:
        yield Step(
            description=f"data source {SOURCE_NAME}, for {feed.address}",
            method="POST",
            path=SOURCE,
            body=body,
        )
        return
    other = {name: value for name, value in body.items() if found.get(name) != value}
    if other:
        what = f"data source {SOURCE_NAME}: {', '.join(other)}"
        yield Step(
            description=what, method="PATCH", path=f"{SOURCE}({found[SOURCE_KEY]})", body=other
        )
    else:
        yield Existing(f"data source {SOURCE_NAME}, for {feed.address}")


def find_data_source(sources: Rows) -> Row | None:
    return next((row for row in sources if row.get("msdyn_name") == SOURCE_NAME), None)


def plan_events(
    requirements: Requirements, ids: Mapping[str, str | None], rows: Rows
) -> Iterator[Item]:
    """Plan external events of each virtual table. `ids`: the MetadataId of each table.

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
            yield Step(
                description=what,
                method="POST",
                path="virtualentitymetadatas",
                body=body,
                solution=requirements.solution,
            )
        elif not all(found.get(name) for name in EVENTS):
            path = f"virtualentitymetadatas({found['virtualentitymetadataid']})"
            yield Step(description=what, method="PATCH", path=path, body=on)
        else:
            yield Existing(what)


def plan_role(requirements: Requirements, unit: str, roles: Rows) -> Iterator[Item]:
    what = f"role {requirements.role.name}"
    if roles:
        yield Existing(what)
        return
    body = {"name": requirements.role.name, "businessunitid@odata.bind": f"/businessunits({unit})"}
    yield Step(
        description=what, method="POST", path="roles", body=body, solution=requirements.solution
    )


def plan_user(requirements: Requirements, unit: str, users: Rows) -> Iterator[Item]:
    """https://learn.microsoft.com/power-platform/admin/manage-application-users"""
    if requirements.identity is None:
        yield ManualTask(
            "the application user was not added: set AZURE_CLIENT_ID, or give --identity"
        )
        return
    what = f"application user of {requirements.identity}"
    if not users:
        body = {
            "applicationid": requirements.identity,
            "businessunitid@odata.bind": f"/businessunits({unit})",
        }
        yield Step(description=what, method="POST", path="systemusers", body=body)
    elif users[0].get("isdisabled"):
        yield ManualTask(f"{what} is disabled: enable it")
    else:
        yield Existing(what)


def list_privilege_names(role: Role, schemas: Mapping[str, str]) -> dict[str, str]:
    """List the privileges of the role, by their names in lower case.

    A privilege is named `prv`, the verb and the table's schema name. Dataverse does so, although no
    page of its documentation promises it.
    """
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
    """Plan the privileges of the role.

    `privilege_ids`: ids by name in lower case. `granted`: the ids that the role has.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/addprivilegesrole
    """
    names = list_privilege_names(requirements.role, schemas)
    # In a dry run a virtual table may not exist yet, and neither do its privileges.
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
        yield Step(description=what, method="POST", path=path, body=body)
    if unknown:
        yield ManualTask(
            f"the organisation has no privilege {', '.join(unknown)}, which the role needs"
        )


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
    yield Step(
        description=what, method="POST", path=path, body={"@odata.id": f"{base}/roles({which})"}
    )


def plan_publication(tables: Sequence[str]) -> Iterator[Item]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/publish-customizations"""
    if tables:
        listed = "".join(f"<entity>{name}</entity>" for name in tables)
        xml = f"<importexportxml><entities>{listed}</entities></importexportxml>"
        yield Step(
            description="publication of the changes",
            method="POST",
            path="PublishXml",
            body={"ParameterXml": xml},
        )
