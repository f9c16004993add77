"""Publisher, solution, data source, events, role and user: what is lacking of them. Pure.

Each function gets the rows that are there, as the Web API tells them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from integration.core.errors import Misconfigured
from integration.provision.model import SECRET, Feed, Item, Note, Role, Step, There, Wanted, later

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


def publisher(wanted: Wanted, publishers: Rows) -> Iterator[Item]:
    """One with the prefix; where several have it, the first that may be used."""
    found = the_publisher(publishers)
    if found is not None:
        yield There(f"publisher {found['uniquename']}, with the prefix {wanted.prefix}")
        return
    if publishers:
        raise Misconfigured(f"the publisher with the prefix {wanted.prefix} is read-only")
    body = {
        "uniquename": f"{wanted.prefix}_fhir_relay",
        "friendlyname": "FHIR relay",
        "customizationprefix": wanted.prefix,
        "customizationoptionvalueprefix": option_prefix(wanted.prefix),
    }
    yield Step(f"publisher with the prefix {wanted.prefix}", "POST", "publishers", body)


def the_publisher(publishers: Rows) -> Row | None:
    return next((one for one in publishers if not one.get("isreadonly")), None)


def option_prefix(prefix: str) -> int:
    """A number from 10,000 to 99,999, the same for the same prefix."""
    digest = hashlib.sha256(prefix.encode()).digest()
    return 10_000 + int.from_bytes(digest[:4]) % 90_000


def solution(wanted: Wanted, solutions: Rows, publisher: str | None) -> Iterator[Item]:
    """Raises Misconfigured where nothing can go into the one that is there."""
    what = f"solution {wanted.solution}"
    if not solutions:
        owner = publisher or later("the publisher")
        body = {
            "uniquename": wanted.solution,
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
            f"{what} is of another publisher than the one with the prefix {wanted.prefix}: "
            "name another solution, or set MAP_PREFIX to that publisher's prefix"
        )
    yield There(what)


def source(feed: Feed, sources: Rows) -> Iterator[Item]:
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
    found = the_source(sources)
    if found is None:
        yield Step(f"data source {SOURCE_NAME}, for {feed.address}", "POST", SOURCE, body)
        return
    other = {name: value for name, value in body.items() if found.get(name) != value}
    if other:
        what = f"data source {SOURCE_NAME}: {', '.join(other)}"
        yield Step(what, "PATCH", f"{SOURCE}({found[SOURCE_KEY]})", other)
    else:
        yield There(f"data source {SOURCE_NAME}, for {feed.address}")


def the_source(sources: Rows) -> Row | None:
    return next((one for one in sources if one.get("msdyn_name") == SOURCE_NAME), None)


def events(wanted: Wanted, ids: Mapping[str, str | None], rows: Rows) -> Iterator[Item]:
    """By the MetadataId of each virtual table.

    https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/enable-virtual-table-event-support
    """
    known = {row.get("_extensionofrecordid_value"): row for row in rows}
    on = dict.fromkeys(EVENTS, True)
    for table in wanted.virtual:
        of = ids[table.name]
        what = f"external events of {table.name}"
        found = known.get(of) if of is not None else None
        if found is None:
            body = {
                "name": f"{table.label} events",
                **on,
                "extensionofrecordid@odata.bind": f"entities({of or later(table.name)})",
            }
            yield Step(what, "POST", "virtualentitymetadatas", body, wanted.solution)
        elif not all(found.get(name) for name in EVENTS):
            path = f"virtualentitymetadatas({found['virtualentitymetadataid']})"
            yield Step(what, "PATCH", path, on)
        else:
            yield There(what)


def role(wanted: Wanted, unit: str, roles: Rows) -> Iterator[Item]:
    what = f"role {wanted.role.name}"
    if roles:
        yield There(what)
        return
    body = {"name": wanted.role.name, "businessunitid@odata.bind": f"/businessunits({unit})"}
    yield Step(what, "POST", "roles", body, wanted.solution)


def user(wanted: Wanted, unit: str, users: Rows) -> Iterator[Item]:
    """https://learn.microsoft.com/power-platform/admin/manage-application-users"""
    if wanted.identity is None:
        yield Note("no application user: set AZURE_CLIENT_ID, or say --identity")
        return
    what = f"application user of {wanted.identity}"
    if not users:
        body = {
            "applicationid": wanted.identity,
            "businessunitid@odata.bind": f"/businessunits({unit})",
        }
        yield Step(what, "POST", "systemusers", body)
    elif users[0].get("isdisabled"):
        yield Note(f"{what} is disabled")
    else:
        yield There(what)


def privilege_names(role: Role, schemas: Mapping[str, str]) -> dict[str, str]:
    """What is granted, by the names that privileges have in lower case: `prvRead` and the schema
    name of the table. Dataverse names them so; no page promises it."""
    return {name.lower(): name for name in (*role.platform, *_of_tables(role, schemas))}


def _of_tables(role: Role, schemas: Mapping[str, str]) -> Iterator[str]:
    for table, verbs in role.tables.items():
        yield from (f"prv{verb}{schemas.get(table, table)}" for verb in verbs)


def privileges(
    wanted: Wanted,
    schemas: Mapping[str, str],
    known: Mapping[str, str],
    of: str | None,
    granted: frozenset[str],
) -> Iterator[Item]:
    """`known`: privileges' ids by name in lower case; `granted`: ids that the role has.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/addprivilegesrole
    """
    names = privilege_names(wanted.role, schemas)
    # In a dry run a table may not be there yet, and its privileges neither.
    new = [table.name for table in wanted.virtual if table.name not in schemas]
    coming = {low: later(names[low]) for low in names if low.endswith(tuple(new))}
    ids = {**coming, **known}
    unknown = [name for low, name in names.items() if low not in ids]
    lacking = [ids[low] for low in names if low in ids and ids[low] not in granted]
    there = len(names) - len(unknown) - len(lacking)
    if there:
        yield There(f"{there} privileges of role {wanted.role.name}")
    if lacking:
        body = {"Privileges": [{"PrivilegeId": one, "Depth": "Global"} for one in lacking]}
        path = f"roles({of or later('the role')})/Microsoft.Dynamics.CRM.AddPrivilegesRole"
        what = f"{len(lacking)} privileges of role {wanted.role.name}"
        yield Step(what, "POST", path, body)
    if unknown:
        yield Note(f"the organisation has no privilege {', '.join(unknown)}")


def assignment(
    wanted: Wanted, base: str, user: str | None, role: str | None, held: frozenset[str]
) -> Iterator[Item]:
    if wanted.identity is None:
        return
    what = f"role {wanted.role.name} of the application user"
    if role is not None and role in held:
        yield There(what)
        return
    who, which = user or later("the application user"), role or later("the role")
    path = f"systemusers({who})/systemuserroles_association/$ref"
    yield Step(what, "POST", path, {"@odata.id": f"{base}/roles({which})"})


def publication(tables: Sequence[str]) -> Iterator[Item]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/publish-customizations"""
    if tables:
        listed = "".join(f"<entity>{name}</entity>" for name in tables)
        xml = f"<importexportxml><entities>{listed}</entities></importexportxml>"
        yield Step("publication of the changes", "POST", "PublishXml", {"ParameterXml": xml})
