"""The columns in which a virtual table shows the patient of each row: name and day of birth. Pure.

They are read only, and their values come from another resource than the others: the Patient that
the lookup `row.patient_lookup` leads to. FHIR searches for them by chaining:
https://hl7.org/fhir/R4/search.html#chaining
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from integration.mapping.model import (
    AttributeMap,
    EntityMap,
    Kind,
    PartialDate,
    Route,
    Search,
    SearchType,
    VirtualColumnOptions,
)

PATIENT = "Patient"

# Dataverse has a column of the lookup's name with `name` behind it already.
_NAME, _BIRTH_DATE = "patientfullname", "patientbirthdate"
_NAME_PATH = (
    "(name.where(use = 'official') | name.where(use = 'usual') | name).currentFirst().first()"
    ".select(iif(given.exists() or family.exists(), given.combine(family), text)).join(' ')"
)


def find_patient_lookup(entity: EntityMap) -> AttributeMap | None:
    """Return the lookup to the patient whom the rows of a table show."""
    found = (item for item in entity.attributes if item.column == entity.patient_lookup)
    return next(found, None)


def build_patient_columns(entity: EntityMap) -> tuple[AttributeMap, ...]:
    """Build the columns of the patient; none where the map names no lookup. Their paths are those
    of a Patient."""
    lookup = find_patient_lookup(entity)
    if lookup is None or lookup.virtual_column.search is None:
        return ()
    prefix = lookup.column.partition("_")[0]
    chain = f"{lookup.virtual_column.search.name}:{PATIENT}"
    return (
        AttributeMap(
            column=f"{prefix}_{_NAME}",
            kind=Kind.COPY,
            path=_NAME_PATH,
            route=Route.VIRTUAL,
            virtual_column=VirtualColumnOptions(
                max_length=250,
                label="Patient's name",
                search=Search(f"{chain}.name", SearchType.STRING, of_words=True),
            ),
        ),
        AttributeMap(
            column=f"{prefix}_{_BIRTH_DATE}",
            kind=Kind.DATE,
            path="birthDate",
            partial=PartialDate.FIRST,
            route=Route.VIRTUAL,
            virtual_column=VirtualColumnOptions(
                label="Patient's date of birth",
                search=Search(f"{chain}.birthdate", SearchType.DATE),
            ),
        ),
    )


def build_patient_map(entity: EntityMap, columns: Iterable[AttributeMap]) -> EntityMap:
    """Build the map that makes these columns of a Patient."""
    return replace(
        entity,
        resource=PATIENT,
        attributes=tuple(columns),
        variables={},
        expands=(),
        unmapped_elements=(),
        expected_elements=(),
    )


def find_include(entity: EntityMap) -> str:
    """Find the value of _include with which a search brings the patients of what it finds:
    https://hl7.org/fhir/R4/search.html#include"""
    lookup = find_patient_lookup(entity)
    assert lookup is not None
    assert lookup.virtual_column.search is not None
    return f"{entity.resource}:{lookup.virtual_column.search.name}:{PATIENT}"


def index_patients(searchset: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the patients of a searchset by `Patient/id`."""
    resources = (entry.get("resource", {}) for entry in searchset.get("entry", ()))
    return {
        f"{PATIENT}/{resource['id']}": resource
        for resource in resources
        if resource.get("resourceType") == PATIENT and isinstance(resource.get("id"), str)
    }
