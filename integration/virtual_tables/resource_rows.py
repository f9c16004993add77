"""Show resources as rows, with the keys of their own rows and of those that they refer to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import Any, Protocol

from integration.fhir.client import FhirServer
from integration.odata.model import EntityValues
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.feed_rows import add_patients, extract_rows, find_patients
from integration.virtual_tables.row_keys import RowKeyResolver

Resource = Mapping[str, Any]

_NO_PATIENTS: Mapping[str, Resource] = MappingProxyType({})


class RowContext(Protocol):
    """What it takes to show resources as rows: what reading and writing have in common."""

    @property
    def fhir(self) -> FhirServer: ...
    @property
    def keys(self) -> RowKeyResolver: ...
    @property
    def today(self) -> Callable[[], date]: ...


async def build_rows(
    context: RowContext,
    entity_type: MappedEntityType,
    resources: Sequence[Resource],
    patients: Mapping[str, Resource] = _NO_PATIENTS,
) -> list[EntityValues]:
    """Map resources to their rows. `patients`: by `Patient/id`, those whom columns show. Raises
    Unmappable for a resource without an id."""
    base, today = context.fhir.upstream.base, context.today()
    extracted = extract_rows(entity_type, resources, base, today)
    add_patients(extracted, patients, today)
    return extracted.set_keys(await context.keys.resolve_keys(extracted.references))


async def build_row(
    context: RowContext, entity_type: MappedEntityType, resource: Resource, run_id: str
) -> EntityValues:
    """Map one resource to its row, and read its patient where a column shows the patient."""
    base, today = context.fhir.upstream.base, context.today()
    names = find_patients(extract_rows(entity_type, [resource], base, today))
    found = {name: await context.fhir.read(name, run_id) for name in names}
    known = {name: patient for name, patient in found.items() if patient is not None}
    (values,) = await build_rows(context, entity_type, [resource], known)
    return values
