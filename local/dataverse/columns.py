"""Check the definition of a new column as Dataverse does; return it in the form of tables/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.dataverse import refusals

PREFIX = "Microsoft.Dynamics.CRM."
CREATABLE_TYPES = frozenset(
    ("String", "Memo", "Integer", "Decimal", "Boolean", "DateTime", "Picklist")
)
MAX_LENGTHS = {"String": 4000, "Memo": 1_048_576}
BEHAVIORS = ("UserLocal", "DateOnly", "TimeZoneIndependent")

Body = Mapping[str, Any]


def parse_column(body: Body, *, virtual: bool, language: int) -> tuple[str, dict[str, Any]]:
    """Return the column's name and definition. Only the body of a lookup has a `target`.
    `language`: the base language of the organisation."""
    kind = str(body.get("@odata.type")).removeprefix("#").removeprefix(PREFIX)
    type_ = kind.removesuffix("AttributeMetadata")
    schema = body.get("SchemaName")
    if type_ not in ({"Lookup"} if "target" in body else CREATABLE_TYPES) or kind == type_:
        raise refusals.bad_payload(
            "EntityDefinitions", f"A type named '{body.get('@odata.type')}' cannot be used here."
        )
    if not isinstance(schema, str):
        raise refusals.bad_argument("A column must have a SchemaName.")
    data = {"type": type_, "schemaName": schema, "label": find_label(body, schema, language)}
    external = body.get("ExternalName")
    if virtual and not external:
        raise refusals.bad_argument(f"External Name property required for '{schema.lower()}'.")
    if external and not virtual:
        raise refusals.bad_argument(f"External Name must be null for '{schema.lower()}'.")
    if external:
        data["external"] = external
    return schema.lower(), data | _parse_details(type_, schema, body, language)


def find_label(body: Body, default: str, language: int) -> str:
    """Return the label in the base language: those in languages that the organisation has not got
    may be dropped, as others have found (real organisations were not asked)."""
    labels = (body.get("DisplayName") or {}).get("LocalizedLabels") or []
    found = [label for label in labels if label["LanguageCode"] == language]
    return str(found[0]["Label"]) if found else default


def _parse_details(type_: str, schema: str, body: Body, language: int) -> dict[str, Any]:
    match type_:
        case "String" | "Memo":
            length = body.get("MaxLength")
            if type(length) is not int or not 0 < length <= MAX_LENGTHS[type_]:
                raise refusals.bad_argument(f"The MaxLength of '{schema}' is not valid.")
            return {"maxLength": length, "format": "text"}
        case "Integer" | "Decimal":
            found = {"min": body.get("MinValue"), "max": body.get("MaxValue")}
            precision = {"precision": body.get("Precision", 2)} if type_ == "Decimal" else {}
            if not 0 <= precision.get("precision", 0) <= 10:
                raise refusals.bad_argument(f"The Precision of '{schema}' is not valid.")
            return {name: value for name, value in found.items() if value is not None} | precision
        case "DateTime":
            behavior = (body.get("DateTimeBehavior") or {}).get("Value", "UserLocal")
            if behavior not in BEHAVIORS:
                raise refusals.bad_argument(f"The DateTimeBehavior of '{schema}' is not valid.")
            day = body.get("Format") == "DateOnly"
            return {"behavior": behavior, "format": "date" if day else "datetime"}
        case "Boolean" | "Picklist":
            return {"options": _parse_options(type_, schema, body.get("OptionSet") or {}, language)}
        case "Lookup":
            target = body["target"]
            return {"targets": [target], "navigation": {target: schema}}
    return {}


def _parse_options(
    type_: str, schema: str, choice: Mapping[str, Any], language: int
) -> list[dict[str, Any]]:
    two_options = (choice.get("FalseOption"), choice.get("TrueOption"))
    options = choice.get("Options") if type_ == "Picklist" else two_options
    listed = [option for option in options or () if option]
    values = [option.get("Value") for option in listed]
    if not listed or len(set(values)) != len(values) or not all(type(v) is int for v in values):
        raise refusals.bad_argument(f"The OptionSet of '{schema}' is not valid.")
    return [
        {
            "value": option["Value"],
            "label": find_label({"DisplayName": option.get("Label")}, "", language),
            "external": option.get("ExternalValue"),
        }
        for option in listed
    ]
