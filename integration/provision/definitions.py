"""Definitions of tables, columns, keys and relationships, as the Web API takes them. Pure.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-entity-definitions-using-web-api
https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/api-considerations-ve
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.dataverse.virtual import build_entity_set
from integration.provision.model import (
    CustomColumn,
    CustomKey,
    VirtualColumn,
    VirtualLookup,
    VirtualTable,
)

_CRM = "Microsoft.Dynamics.CRM."
_LANGUAGE = 1033

_OFF = {"Value": False, "CanBeChanged": False}

# Without these, each of them switched on by default, a virtual table is refused. That the page
# above says "always false" of them does not mean that they are.
_NEVER_VIRTUAL = {
    "ChangeTrackingEnabled": False,
    "CanChangeTrackingBeEnabled": _OFF,
    "IsAuditEnabled": _OFF,
    "CanCreateCharts": _OFF,
    "IsDuplicateDetectionEnabled": _OFF,
    "IsMailMergeEnabled": _OFF,
    "IsAvailableOffline": False,
    "IsVisibleInMobileClient": _OFF,
    "IsBusinessProcessEnabled": False,
}

# A contact that is deleted must not reach into clinical data: with RemoveLink, the default,
# Dataverse would write to every row that points at it.
_NO_CASCADE = dict.fromkeys(
    ("Assign", "Delete", "Merge", "Reparent", "Share", "Unshare"), "NoCascade"
)
_UNLINKED = {**_NO_CASCADE, "Delete": "RemoveLink"}

# What Dataverse takes; the feed's own bounds are narrower.
_DECIMALS = {"MinValue": -100000000000, "MaxValue": 100000000000, "Precision": 10}


def label(text: str) -> Mapping[str, Any]:
    """In the base language of most organisations; others show it as it is."""
    return {
        "@odata.type": f"{_CRM}Label",
        "LocalizedLabels": [
            {"@odata.type": f"{_CRM}LocalizedLabel", "Label": text, "LanguageCode": _LANGUAGE}
        ],
    }


def virtual_table(table: VirtualTable, provider: str, source: str) -> dict[str, Any]:
    """With its primary name column; the others follow one by one."""
    return {
        "@odata.type": f"{_CRM}EntityMetadata",
        "SchemaName": table.name,
        "EntitySetName": build_entity_set(table.name),
        "DisplayName": label(table.label),
        "DisplayCollectionName": label(_plural(table.label)),
        "OwnershipType": "OrganizationOwned",
        "TableType": "Virtual",
        "IsActivity": False,
        "HasActivities": False,
        "HasNotes": False,
        **_NEVER_VIRTUAL,
        "ExternalName": table.entity_type,
        "ExternalCollectionName": table.set,
        "DataProviderId": provider,
        "DataSourceId": source,
        "Attributes": [{**virtual_column(table.name_column), "IsPrimaryName": True}],
    }


def virtual_column(column: VirtualColumn) -> dict[str, Any]:
    """Reads and writes go by `ExternalName`."""
    return {
        **_column(column.type, column.name, column.label),
        "ExternalName": column.external,
        **_details(column),
    }


def custom_column(column: CustomColumn) -> dict[str, Any]:
    """A column of a table that has rows. Lookups are `lookup` of them."""
    details: dict[str, Any] = {}
    if column.type == "String":
        details = {"MaxLength": column.max_length, "FormatName": {"Value": "Text"}}
    elif column.type == "DateTime":
        whole = column.format == "date"
        details = {
            "Format": "DateOnly" if whole else "DateAndTime",
            "DateTimeBehavior": {"Value": column.behavior or "UserLocal"},
        }
    return {**_column(column.type, column.schema, column.label), **details}


def custom_lookup(table: str, column: CustomColumn, target: str) -> dict[str, Any]:
    """A lookup is made with its relationship."""
    lookup = _column("Lookup", column.schema, column.label)
    return _relationship(table, column.name, target, lookup, _UNLINKED)


def virtual_lookup(table: str, one: VirtualLookup) -> dict[str, Any]:
    """That NoCascade is taken for Delete where the referencing table is virtual is not said
    anywhere: an organisation that refuses it says so."""
    lookup = {**_column("Lookup", one.name, one.label), "ExternalName": one.external}
    return _relationship(table, one.name, one.target, lookup, _NO_CASCADE)


def key(one: CustomKey) -> dict[str, Any]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity"""
    return {
        "@odata.type": f"{_CRM}EntityKeyMetadata",
        "SchemaName": one.name,
        "DisplayName": label("FHIR resource"),
        "KeyAttributes": list(one.columns),
    }


def primary_key(found: Mapping[str, Any], external: str) -> dict[str, Any]:
    """Dataverse makes the primary key by itself, and without an external name; a column is
    updated by its whole definition.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-column-definitions-using-web-api
    """
    kept = {name: value for name, value in found.items() if not name.startswith("@odata.")}
    kind = f"{_CRM}UniqueIdentifierAttributeMetadata"
    return {"@odata.type": kind, **kept, "ExternalName": external}


def _column(type_: str, schema: str, text: str) -> dict[str, Any]:
    return {
        "@odata.type": f"{_CRM}{type_}AttributeMetadata",
        "SchemaName": schema,
        "DisplayName": label(text),
        "RequiredLevel": {"Value": "None", "CanBeChanged": True},
    }


def _details(column: VirtualColumn) -> dict[str, Any]:
    match column.type:
        case "String":
            return {"MaxLength": column.max_length, "FormatName": {"Value": "Text"}}
        case "Memo":
            return {"MaxLength": column.max_length, "Format": "TextArea"}
        case "Decimal":
            return _DECIMALS
        case "Boolean":
            return {"OptionSet": {"TrueOption": _option(1, "Yes"), "FalseOption": _option(0, "No")}}
        case "Picklist":
            options = [_option(value, text) for value, text in column.options]
            kind = {"@odata.type": f"{_CRM}OptionSetMetadata", "IsGlobal": False}
            return {"OptionSet": {**kind, "OptionSetType": "Picklist", "Options": options}}
        case "DateTime":
            # The feed tells a day as its midnight in UTC; by UserLocal it would be shown as the
            # day before to whoever is west of it. DateOnly is for Edm.Date, which the provider
            # does not know. Not tried on an organisation.
            behavior = "TimeZoneIndependent" if column.whole_day else "UserLocal"
            shown = "DateOnly" if column.whole_day else "DateAndTime"
            return {"Format": shown, "DateTimeBehavior": {"Value": behavior}}
    return {}


def _option(value: int, text: str) -> dict[str, Any]:
    return {"Value": value, "Label": label(text)}


def _relationship(
    table: str, column: str, target: str, lookup: dict[str, Any], cascade: Mapping[str, str]
) -> dict[str, Any]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-entity-relationships-using-web-api"""
    prefix = column.partition("_")[0]
    menu = {"Behavior": "UseCollectionName", "Group": "Details", "Order": 10000}
    return {
        "@odata.type": f"{_CRM}OneToManyRelationshipMetadata",
        # up to 100 characters
        "SchemaName": f"{prefix}_{target}_{table.removeprefix(prefix + '_')}_{column}"[:100],
        "ReferencedEntity": target,
        "ReferencedAttribute": f"{target}id",
        "ReferencingEntity": table,
        "CascadeConfiguration": cascade,
        "AssociatedMenuConfiguration": menu,
        "Lookup": lookup,
    }


def _plural(text: str) -> str:
    return f"{text[:-1]}ies" if text.endswith("y") else f"{text}s"
