"""`msind_UpsertBundle` of the Dataverse healthcare APIs: write rows from a FHIR bundle.

The response has a result for each row. The maps are few and fixed (see bundle_rows); the envelope
is Microsoft's:
https://learn.microsoft.com/dynamics365/industry/healthcare/use-dataverse-healthcare-apis
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.dataverse import addresses, bundle_rows, refusals, writes
from local.dataverse.bundle_rows import MappedResource
from local.dataverse.rows import Row, Slice, Values
from local.dataverse.tables import Table
from local.dataverse.wire import Refusal
from local.dataverse.world import World
from local.dataverse.writes import Condition, Written

NAME = "msind_UpsertBundle"
PARAMETERS = frozenset({"msind_JSON", "msind_BundleTag"})
TYPES = frozenset({"batch", "batch-response"})

CREATED, UPDATED, EXPANDED = 935000000, 935000001, 935000002
SUCCESS, ERROR = 935000000, 935000002

WrittenRows = list[tuple[Table, Written]]


@dataclass(slots=True)
class _BundleRun:
    world: World
    urns: Mapping[str, str]  # fullUrl -> Type/id, for the references within the bundle
    results: list[Values] = field(default_factory=list)
    written: WrittenRows = field(default_factory=list)


def upsert_bundle(world: World, payload: Values) -> tuple[Values, WrittenRows]:
    """Return the response and the rows written. A failed entry does not affect the others."""
    resources, urns = _read_resources(payload)
    run = _BundleRun(world, urns)
    for resource in resources:
        _upsert_resource(run, resource)
    fine = all(result["msind_requeststatus"] == SUCCESS for result in run.results)
    detail = "The bundle was processed successfully."
    if not fine:
        detail = "The bundle was processed with warnings or errors. See the results for details."
    document = {"msind_Status": fine, "msind_StatusDetail": detail, "msind_Results": run.results}
    return document, run.written


def _read_resources(payload: Values) -> tuple[list[Values], dict[str, str]]:
    if unknown := sorted(payload.keys() - PARAMETERS):
        raise refusals.bad_payload(
            NAME,
            f"The parameter '{unknown[0]}' in the request payload is not a valid parameter for "
            f"the operation '{NAME}'.",
        )
    if not all(isinstance(value, str) for value in payload.values()):
        raise refusals.bad_payload(NAME, "The parameters are of type 'Edm.String'.")
    if not payload.get("msind_JSON"):
        raise refusals.bad_argument("Required parameter 'msind_JSON' is missing.")
    try:
        bundle = json.loads(payload["msind_JSON"])
        is_bundle, kind, entries = (
            bundle["resourceType"] == "Bundle",
            bundle["type"],
            bundle["entry"],
        )
        resources = [{**entry["resource"]} for entry in entries]
        urns = {
            entry["fullUrl"]: f"{entry['resource']['resourceType']}/{entry['resource'].get('id')}"
            for entry in entries
            if "fullUrl" in entry
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refusals.plug_in_failed("The JSON is not a FHIR bundle with resources.") from error
    if not is_bundle or kind not in TYPES:
        raise refusals.plug_in_failed("Only bundles of type batch and batch-response are taken.")
    return resources, urns


def _upsert_resource(run: _BundleRun, resource: Values) -> None:
    """Write the root row and its child rows, each with a result of its own."""
    kind, identifier = str(resource.get("resourceType")), resource.get("id")
    result = _build_result(kind, identifier, bundle_rows.TABLES.get(kind))
    run.results.append(result)
    if not isinstance(identifier, str):
        _fail(result, "The resource has no id.")
        return
    if kind not in bundle_rows.TABLES:
        _fail(result, f"There is no enabled entity map for {kind}.")
        return
    try:
        rows = bundle_rows.map_resource(resource)
        missing = [
            reference for reference in rows.references if _find_reference(run, reference) is None
        ]
        if missing:
            _fail(result, f"{kind}: a reference does not resolve to a row.")
            return
        written = _write_root(run, rows)
    except (KeyError, TypeError, AttributeError, IndexError):
        _fail(result, f"{kind}: an element has not the shape that FHIR gives it.")
        return
    except Refusal as refusal:
        _fail(result, f"{kind}: {refusal.message}")
        return
    result["msind_resultingrecordid"] = written.row.id
    result["msind_requestactionperformed"] = CREATED if written.created else UPDATED
    result["msind_requeststatusdetail"] = f"The {rows.table} row was written."
    troubles = [
        trouble for child in rows.children if (trouble := _write_child(run, result, rows, child))
    ]
    if troubles:
        _fail(result, "\r\n".join((result["msind_requeststatusdetail"], *troubles)))


def _write_root(run: _BundleRun, rows: MappedResource) -> Written:
    table = run.world.catalog.by_name[rows.table]
    found = _find_by_fhir_id(run, rows.table, rows.fhir_id)
    payload = {
        **rows.columns,
        **{name: _resolve_reference(run, ref) for name, ref in rows.links.items()},
    }
    with run.world.store.transaction():
        written = _write_row(run, table, found, payload)
    run.written.append((table, written))
    return written


def _write_row(run: _BundleRun, table: Table, found: Row | None, payload: Values) -> Written:
    if found is None:
        return writes.create(run.world, table, payload)
    address = addresses.parse_address(table, found.id)
    return writes.upsert(run.world, address, payload, Condition())


def _write_child(
    run: _BundleRun, root: Values, rows: MappedResource, child: bundle_rows.Child
) -> str | None:
    """Write a child row. Return the error, if any; the parent row stays written."""
    result = _build_result(
        root["msind_fhirresourcetype"], root["msind_fhirresourceid"], child.table
    )
    result["msind_requestactionperformed"] = EXPANDED
    run.results.append(result)
    before = len(run.written)
    table = run.world.catalog.by_name[child.table]
    parent = (
        f"/{run.world.catalog.by_name[rows.table].entity_set}({root['msind_resultingrecordid']})"
    )
    try:
        with run.world.store.transaction():
            links = {
                name: _resolve_reference(run, reference) for name, reference in child.links.items()
            }
            concepts = {
                name: f"/msemr_codeableconcepts({_find_or_create_concept(run, *concept)})"
                for name, concept in child.concepts.items()
            }
            payload = {
                **child.columns,
                **links,
                **{f"{name}@odata.bind": url for name, url in concepts.items()},
                f"{child.parent}@odata.bind": parent,
            }
            found = _find_child(run, table, child, root["msind_resultingrecordid"])
            written = _write_row(run, table, found, payload)
    except Refusal as refusal:
        del run.written[before:]  # the concept created for this row was rolled back with it
        _fail(result, f"{child.element}: {refusal.message}")
        return str(result["msind_requeststatusdetail"])
    run.written.append((table, written))
    result["msind_resultingrecordid"] = written.row.id
    return None


def _find_child(run: _BundleRun, table: Table, child: bundle_rows.Child, parent: str) -> Row | None:
    """Find the child row of this parent with the same matching columns."""
    parent_column = table.navigations[child.parent][0].property_name
    values = {parent_column: parent, **{name: child.columns.get(name) for name in child.match}}
    return next(_find_equal(run.world, table, values), None)


def _find_or_create_concept(run: _BundleRun, kind: int, code: str) -> str:
    """Return the id of the codeable concept; create it if it is missing."""
    table = run.world.catalog.by_name["msemr_codeableconcept"]
    values: Values = {"msemr_type": kind, "msemr_code": code}
    found = next(_find_equal(run.world, table, values), None)
    if found is not None:
        return found.id
    written = writes.create(run.world, table, {**values, "msemr_name": code})
    run.written.append((table, written))
    return written.row.id


def _resolve_reference(run: _BundleRun, reference: str) -> str:
    found = _find_reference(run, reference)
    if found is None:
        raise refusals.plug_in_failed("a reference does not resolve to a row.")
    return found


def _find_reference(run: _BundleRun, reference: str) -> str | None:
    """Return `/contacts(…)` for a `Type/id` or a urn within the bundle, or None."""
    kind, _, identifier = run.urns.get(reference, reference).partition("/")
    table = bundle_rows.TABLES.get(kind)
    row = _find_by_fhir_id(run, table, identifier) if table else None
    return f"/{run.world.catalog.by_name[table].entity_set}({row.id})" if table and row else None


def _find_by_fhir_id(run: _BundleRun, table: str, fhir_id: str) -> Row | None:
    values = {"msemr_azurefhirid": fhir_id}
    return next(_find_equal(run.world, run.world.catalog.by_name[table], values), None)


def _find_equal(world: World, table: Table, values: Values) -> Iterator[Row]:
    where = " AND ".join(f"json_extract(body, '$.\"{name}\"') IS ?" for name in values)
    yield from world.store.find(
        table, Slice(where=where, parameters=list(values.values()), order="id", limit=1, offset=0)
    )


def _build_result(kind: str, identifier: Any, table: str | None) -> Values:
    return {
        "@odata.type": "#Microsoft.Dynamics.CRM.msind_upsertfhirbundleresult",
        "msind_fhirresourceid": identifier,
        "msind_fhirresourcetype": kind,
        "msind_resultingrecordtype": table,
        "msind_requestactionperformed": CREATED,
        "msind_requeststatus": SUCCESS,
        "msind_requeststatusdetail": "",
    }


def _fail(result: Values, detail: str) -> None:
    result["msind_requeststatus"] = ERROR
    result["msind_requeststatusdetail"] = detail
