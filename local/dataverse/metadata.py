"""Describe tables, columns, keys and relationships as `EntityDefinitions` does.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query-metadata-web-api
"""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

from local.dataverse.tables import Column, Key, Option, Table

Document = dict[str, Any]

REQUIREMENT_LEVELS = {
    "none": "None",
    "recommended": "Recommended",
    "required": "ApplicationRequired",
    "systemrequired": "SystemRequired",
}
# The metadata type of an attribute, where it differs from the column's type.
ATTRIBUTE_TYPES = {"Uniqueidentifier": "UniqueIdentifier", "Owner": "Lookup", "Customer": "Lookup"}
# All attribute types, used or not:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query-metadata-web-api
ALL_ATTRIBUTE_TYPES = frozenset(
    f"Microsoft.Dynamics.CRM.{kind}AttributeMetadata"
    for kind in (
        "BigInt Boolean DateTime Decimal Double EntityName File Image Integer Lookup "
        "ManagedProperty Memo Money MultiSelectPicklist Picklist State Status String "
        "UniqueIdentifier"
    ).split()
)
INT32 = (-2147483648, 2147483647)
INT64 = (-9223372036854775808, 9223372036854775807)


def describe_table(table: Table) -> Document:
    primary = table.columns[table.primary_id].schema_name
    return {
        "MetadataId": make_id(table.name),
        "LogicalName": table.name,
        "SchemaName": primary.removesuffix("Id"),
        "EntitySetName": table.entity_set,
        "LogicalCollectionName": table.entity_set,
        "PrimaryIdAttribute": table.primary_id,
        "PrimaryNameAttribute": table.primary_name,
        "OwnershipType": "UserOwned" if table.ownership == "UserOwned" else "OrganizationOwned",
        "TableType": "Virtual" if table.external else "Standard",
        "IsActivity": False,
        "IsCustomEntity": table.external is not None or table.name.startswith("msemr_"),
        "IsOptimisticConcurrencyEnabled": table.external is None,
        "ChangeTrackingEnabled": table.change_tracking,
        "DataProviderId": table.external.provider if table.external else None,
        "DataSourceId": table.external.source if table.external else None,
        "ExternalName": table.external.name if table.external else None,
        "ExternalCollectionName": table.external.collection if table.external else None,
        "DisplayName": _describe_label(table.label),
    }


def describe_attributes(table: Table) -> list[Document]:
    return [describe_attribute(table, column) for _, column in sorted(table.columns.items())]


def describe_attribute(table: Table, column: Column) -> Document:
    common = {
        "MetadataId": make_id(table.name, column.name),
        "LogicalName": column.name,
        "SchemaName": column.schema_name,
        "EntityLogicalName": table.name,
        "AttributeType": "Virtual" if column.type == "Image" else column.type,
        "AttributeTypeName": {"Value": f"{column.type}Type"},
        "AttributeOf": None,
        "RequiredLevel": {
            "Value": REQUIREMENT_LEVELS[column.required],
            "CanBeChanged": column.required != "systemrequired",
            "ManagedPropertyLogicalName": "canmodifyrequirementlevelsettings",
        },
        "IsPrimaryId": column.name == table.primary_id,
        "IsPrimaryName": column.name == table.primary_name,
        "IsCustomAttribute": _is_custom(column),
        "IsValidForRead": True,
        "ExternalName": column.external,
        "IsValidForCreate": not column.read_only,
        "IsSecured": False,
        "IsValidForUpdate": not column.read_only and column.name != table.primary_id,
        "DisplayName": _describe_label(column.label),
    }
    return {"@odata.type": f"#{find_attribute_type(column)}", **common, **_describe_type(column)}


def find_attribute_type(column: Column) -> str:
    return (
        f"Microsoft.Dynamics.CRM.{ATTRIBUTE_TYPES.get(column.type, column.type)}AttributeMetadata"
    )


def describe_choices(table: Table, column: Column) -> Document:
    """Return the option sets that `$expand` adds. A column has a global or a local one."""
    if column.type == "Boolean":
        return {"OptionSet": _describe_two_options(table, column), "GlobalOptionSet": None}
    if not column.options:
        return {}
    name = column.global_choice or f"{table.name}_{column.name}"
    document = {
        "MetadataId": make_id("optionset", name),
        "Name": name,
        "IsGlobal": column.global_choice is not None,
        "OptionSetType": column.type,
        "Options": [_describe_option(column, option) for option in column.options],
    }
    if column.global_choice is not None:
        return {"OptionSet": None, "GlobalOptionSet": document}
    return {"OptionSet": document, "GlobalOptionSet": None}


def describe_key(table: Table, key: Key) -> Document:
    return {
        "MetadataId": make_id(table.name, "key", key.name),
        "LogicalName": key.name,
        "SchemaName": key.name,
        "EntityLogicalName": table.name,
        "KeyAttributes": list(key.columns),
        "EntityKeyIndexStatus": key.status,
        "DisplayName": _describe_label(key.name),
    }


def describe_relationships(table: Table) -> list[Document]:
    """Describe the many-to-one relationships: navigation properties to other tables."""
    return [
        {
            "MetadataId": make_id(table.name, "relationship", navigation),
            "SchemaName": f"{table.name}_{navigation}_{target}",
            "RelationshipType": "OneToManyRelationship",
            "ReferencingEntity": table.name,
            "ReferencingAttribute": column.name,
            "ReferencingEntityNavigationPropertyName": navigation,
            "ReferencedEntity": target,
            "ReferencedAttribute": f"{target}id",
            "ReferencedEntityNavigationPropertyName": f"{table.name}_{navigation}_{target}",
            "IsCustomRelationship": _is_custom(column),
        }
        for navigation, (column, _) in sorted(table.navigations.items())
        for target, name in column.navigation
        if name == navigation
    ]


def _is_custom(column: Column) -> bool:
    """Whether the schema name has a publisher's prefix, which is in lower case."""
    prefix, separator, _ = column.schema_name.partition("_")
    return bool(separator) and prefix.islower()


def _describe_type(column: Column) -> Document:
    match column.type:
        case "String" | "Memo":
            style = (column.format or "text").capitalize()
            return {
                "MaxLength": column.max_length,
                "Format": style if column.type == "String" else "TextArea",
                "FormatName": {"Value": style if column.type == "String" else "TextArea"},
            }
        case "DateTime":
            format_ = "DateOnly" if column.format == "date" else "DateAndTime"
            return {"Format": format_, "DateTimeBehavior": {"Value": column.behavior}}
        case "Lookup" | "Owner" | "Customer":
            return {"Targets": list(column.targets)}
        case "Integer" | "BigInt":
            low, high = INT32 if column.type == "Integer" else INT64
            return _describe_limits(column, low, high)
        case "Decimal" | "Double" | "Money":
            return {**_describe_limits(column, None, None), "Precision": _find_precision(column)}
    return {}


def _describe_limits(column: Column, low: int | None, high: int | None) -> Document:
    return {
        "MinValue": low if column.minimum is None else column.minimum,
        "MaxValue": high if column.maximum is None else column.maximum,
    }


def _find_precision(column: Column) -> int:
    """Return the column's decimal places, or Dataverse's default for a new column."""
    defaults = {"Decimal": 2, "Double": 5, "Money": 2}
    return defaults[column.type] if column.precision is None else column.precision


def _describe_two_options(table: Table, column: Column) -> Document:
    labels = {option.value: option.label for option in column.options}
    return {
        "MetadataId": make_id("optionset", f"{table.name}_{column.name}"),
        "Name": f"{table.name}_{column.name}",
        "IsGlobal": False,
        "OptionSetType": "Boolean",
        "TrueOption": {"Value": 1, "Label": _describe_label(labels.get(1, "Yes"))},
        "FalseOption": {"Value": 0, "Label": _describe_label(labels.get(0, "No"))},
    }


def _describe_option(column: Column, option: Option) -> Document:
    document: Document = {
        "Value": option.value,
        "Label": _describe_label(option.label),
        "ExternalValue": option.external,
    }
    if column.type == "State":
        return {"@odata.type": "#Microsoft.Dynamics.CRM.StateOptionMetadata", **document}
    if column.type == "Status":
        special = {"@odata.type": "#Microsoft.Dynamics.CRM.StatusOptionMetadata"}
        return {**special, **document, "State": option.state}
    return document


def _describe_label(text: str) -> Document:
    label = {"Label": text, "LanguageCode": 1033}
    return {"LocalizedLabels": [label], "UserLocalizedLabel": label}


def make_id(*parts: str) -> str:
    return str(uuid5(NAMESPACE_URL, "/".join(parts)))
