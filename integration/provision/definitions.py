"""Build definitions of tables, columns, keys and relationships for the Web API. Pure.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-entity-definitions-using-web-api
https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/api-considerations-ve
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.dataverse.virtual_table_names import build_entity_set
from integration.provision.model import (
    CustomColumn,
    CustomKey,
    OwnTable,
    VirtualColumn,
    VirtualLookup,
    VirtualTable,
    make_placeholder,
)

_CRM = "Microsoft.Dynamics.CRM."
_MANAGED_OFF = {"Value": False, "CanBeChanged": False}

# Dataverse refuses a virtual table with any of these on, and each is on by default, although the
# page above says "always false".
_NEVER_VIRTUAL = {
    "ChangeTrackingEnabled": False,
    "CanChangeTrackingBeEnabled": _MANAGED_OFF,
    "IsAuditEnabled": _MANAGED_OFF,
    "CanCreateCharts": _MANAGED_OFF,
    "IsDuplicateDetectionEnabled": _MANAGED_OFF,
    "IsMailMergeEnabled": _MANAGED_OFF,
    "IsAvailableOffline": False,
    "IsVisibleInMobileClient": _MANAGED_OFF,
    "IsBusinessProcessEnabled": False,
}

# Deleting a contact must not change clinical data. With RemoveLink, the default, Dataverse would
# write to every row that points at the contact.
_NO_CASCADE = dict.fromkeys(
    ("Assign", "Delete", "Merge", "Reparent", "Share", "Unshare"), "NoCascade"
)
_UNLINKED = {**_NO_CASCADE, "Delete": "RemoveLink"}

# The widest that Dataverse accepts; the feed's own bounds are narrower.
_DECIMALS = {"MinValue": -100000000000, "MaxValue": 100000000000, "Precision": 10}


def build_label(text: str, language: int) -> Mapping[str, Any]:
    """Build a label. The text is English, whatever the language: an organisation shows the label of
    its base language, and may drop or refuse those of languages that it has not got."""
    return {
        "@odata.type": f"{_CRM}Label",
        "LocalizedLabels": [
            {"@odata.type": f"{_CRM}LocalizedLabel", "Label": text, "LanguageCode": language}
        ],
    }


def build_virtual_table(
    table: VirtualTable, provider: str, source: str, language: int
) -> dict[str, Any]:
    """Build a virtual table with its primary name column. Other columns are added one by one."""
    return {
        "@odata.type": f"{_CRM}EntityMetadata",
        "SchemaName": table.name,
        "EntitySetName": build_entity_set(table.name),
        "DisplayName": build_label(table.label, language),
        "DisplayCollectionName": build_label(_make_plural(table.label), language),
        "OwnershipType": "OrganizationOwned",
        "TableType": "Virtual",
        "IsActivity": False,
        "HasActivities": False,
        "HasNotes": False,
        **_NEVER_VIRTUAL,
        "ExternalName": table.entity_type,
        "ExternalCollectionName": table.entity_set,
        "DataProviderId": provider,
        "DataSourceId": source,
        "Attributes": [
            {**build_virtual_column(table.name_column, language), "IsPrimaryName": True}
        ],
    }


def build_virtual_column(column: VirtualColumn, language: int) -> dict[str, Any]:
    """Build a column of a virtual table. Dataverse reads and writes it by its `ExternalName`."""
    return {
        **_build_column(column.type, column.name, column.label, language),
        "ExternalName": column.external_name,
        **_build_details(column, language),
    }


def build_own_table(table: OwnTable, language: int) -> dict[str, Any]:
    """Build a table with rows, and its primary name column. Other columns are added one by one.

    Its rows have owners, so that roles can keep them to a business unit.
    """
    shown = table.shown_by
    return {
        "@odata.type": f"{_CRM}EntityMetadata",
        "SchemaName": table.name,
        "EntitySetName": build_entity_set(table.name),
        "DisplayName": build_label(shown.label, language),
        "DisplayCollectionName": build_label(_make_plural(shown.label), language),
        "OwnershipType": "UserOwned",
        "IsActivity": False,
        "HasActivities": False,
        "HasNotes": False,
        "Attributes": [{**build_own_column(shown.name_column, language), "IsPrimaryName": True}],
    }


def build_own_column(column: VirtualColumn, language: int) -> dict[str, Any]:
    """Build the column of a table with rows that a virtual table shows. A day is a day there."""
    details = _build_details(column, language)
    if column.is_date_only:
        details = {**details, "DateTimeBehavior": {"Value": "DateOnly"}}
    return {**_build_column(column.type, column.name, column.label, language), **details}


def build_own_lookup(table: str, lookup: VirtualLookup, language: int) -> dict[str, Any]:
    """Build a lookup of a table with rows."""
    column = _build_column("Lookup", lookup.name, lookup.label, language)
    return _build_relationship(table, lookup.name, lookup.target, column, _UNLINKED)


def build_custom_column(column: CustomColumn, language: int) -> dict[str, Any]:
    """Build a column of a table with rows of its own, but for lookups."""
    details: dict[str, Any] = {}
    if column.type == "String":
        details = {"MaxLength": column.max_length, "FormatName": {"Value": "Text"}}
    elif column.type == "Boolean":
        details = _build_yes_no(language)
    elif column.type == "DateTime":
        whole = column.format == "date"
        details = {
            "Format": "DateOnly" if whole else "DateAndTime",
            "DateTimeBehavior": {"Value": column.behavior or "UserLocal"},
        }
    return {**_build_column(column.type, column.schema_name, column.label, language), **details}


def build_custom_lookup(
    table: str, column: CustomColumn, target: str, language: int
) -> dict[str, Any]:
    """Build a lookup: a relationship, which the lookup column is part of."""
    lookup = _build_column("Lookup", column.schema_name, column.label, language)
    return _build_relationship(table, column.name, target, lookup, _UNLINKED)


def build_virtual_lookup(
    table: str, virtual_lookup: VirtualLookup, language: int
) -> dict[str, Any]:
    """Build a lookup from a virtual table.

    That NoCascade is allowed for Delete there is not documented; an organisation that refuses it
    says so.
    """
    lookup = {
        **_build_column("Lookup", virtual_lookup.name, virtual_lookup.label, language),
        "ExternalName": virtual_lookup.external_name,
    }
    return _build_relationship(
        table, virtual_lookup.name, virtual_lookup.target, lookup, _NO_CASCADE
    )


def build_key(key: CustomKey, language: int) -> dict[str, Any]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity"""
    return {
        "@odata.type": f"{_CRM}EntityKeyMetadata",
        "SchemaName": key.name,
        "DisplayName": build_label("FHIR resource", language),
        "KeyAttributes": list(key.columns),
    }


def build_tracked_table(found: Mapping[str, Any]) -> dict[str, Any]:
    """Build the update of a table whose changes are to be tracked. An update takes the whole
    definition, `found`.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-entity-definitions-using-web-api
    """
    kept = {name: value for name, value in found.items() if not name.startswith("@odata.")}
    return {"@odata.type": f"{_CRM}EntityMetadata", **kept, "ChangeTrackingEnabled": True}


def build_primary_key(found: Mapping[str, Any], external: str) -> dict[str, Any]:
    """Build the update that gives the primary key its external name.

    Dataverse adds the key without one. An update takes the whole definition, `found`, which a dry
    run cannot know before Dataverse has made the table.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-column-definitions-using-web-api
    """
    kept = {name: value for name, value in found.items() if not name.startswith("@odata.")}
    kept = kept or {"LogicalName": make_placeholder("the definition that Dataverse makes, whole")}
    kind = f"{_CRM}UniqueIdentifierAttributeMetadata"
    return {"@odata.type": kind, **kept, "ExternalName": external}


def _build_column(type_: str, schema: str, text: str, language: int) -> dict[str, Any]:
    return {
        "@odata.type": f"{_CRM}{type_}AttributeMetadata",
        "SchemaName": schema,
        "DisplayName": build_label(text, language),
        "RequiredLevel": {"Value": "None", "CanBeChanged": True},
    }


def _build_details(column: VirtualColumn, language: int) -> dict[str, Any]:
    match column.type:
        case "String":
            return {"MaxLength": column.max_length, "FormatName": {"Value": "Text"}}
        case "Memo":
            return {"MaxLength": column.max_length, "Format": "TextArea"}
        case "Decimal":
            return _DECIMALS
        case "Boolean":
            return _build_yes_no(language)
        case "Picklist":
            # Microsoft's pages say that the provider finds an option by its external value, and do
            # not say whether a number is the option's own. So it has both, and they are the same.
            # https://learn.microsoft.com/power-apps/maker/data-platform/create-edit-virtual-entities
            options = [
                {**_build_option(value, text, language), "ExternalValue": str(value)}
                for value, text in column.options
            ]
            kind = {"@odata.type": f"{_CRM}OptionSetMetadata", "IsGlobal": False}
            return {"OptionSet": {**kind, "OptionSetType": "Picklist", "Options": options}}
        case "DateTime":
            # The feed sends a day as its midnight in UTC; with UserLocal, users west of it would
            # see the day before. DateOnly needs Edm.Date, which the provider does not know. Not
            # tried on an organisation.
            behavior = "TimeZoneIndependent" if column.is_date_only else "UserLocal"
            shown = "DateOnly" if column.is_date_only else "DateAndTime"
            return {"Format": shown, "DateTimeBehavior": {"Value": behavior}}
    return {}


def _build_yes_no(language: int) -> dict[str, Any]:
    yes, no = _build_option(1, "Yes", language), _build_option(0, "No", language)
    return {"OptionSet": {"TrueOption": yes, "FalseOption": no}}


def _build_option(value: int, text: str, language: int) -> dict[str, Any]:
    return {"Value": value, "Label": build_label(text, language)}


def _build_relationship(
    table: str, column: str, target: str, lookup: dict[str, Any], cascade: Mapping[str, str]
) -> dict[str, Any]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/webapi/create-update-entity-relationships-using-web-api"""
    prefix = column.partition("_")[0]
    menu = {"Behavior": "UseCollectionName", "Group": "Details", "Order": 10000}
    return {
        "@odata.type": f"{_CRM}OneToManyRelationshipMetadata",
        # Dataverse allows 100 characters.
        "SchemaName": f"{prefix}_{target}_{table.removeprefix(prefix + '_')}_{column}"[:100],
        "ReferencedEntity": target,
        "ReferencedAttribute": f"{target}id",
        "ReferencingEntity": table,
        "CascadeConfiguration": cascade,
        "AssociatedMenuConfiguration": menu,
        "Lookup": lookup,
    }


def _make_plural(text: str) -> str:
    return f"{text[:-1]}ies" if text.endswith("y") else f"{text}s"
