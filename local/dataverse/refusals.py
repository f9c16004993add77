"""Every error of Dataverse that the stand-in returns, with its status, code and text.

Names of the codes: https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
Client errors: https://learn.microsoft.com/troubleshoot/power-platform/power-apps/dataverse/web-api-client-errors
"""

from __future__ import annotations

from local.dataverse.wire import Refusal

QUERY = "0x80060888"  # the OData layer's code for an invalid URL or payload
PAYLOAD = "0x80048d19"


def no_resource(segment: str) -> Refusal:
    return Refusal(404, "0x8006088a", f"Resource not found for the segment '{segment}'.")


def no_http_resource(url: str) -> Refusal:
    return Refusal(404, "", f"No HTTP resource was found that matches the request URI '{url}'.")


def no_method(method: str) -> Refusal:
    return Refusal(405, "", f"The requested resource does not support http method '{method}'.")


def not_offered(what: str) -> Refusal:
    """Dataverse can do this, the stand-in cannot: never a 4xx, which would blame the sender."""
    return Refusal(501, "0x80040216", f"This stand-in does not offer {what}.")


def no_property(name: str, type_name: str) -> Refusal:
    return Refusal(
        400,
        QUERY,
        f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{type_name}'.",
    )


def bad_query(message: str) -> Refusal:
    return Refusal(400, QUERY, message)


def bad_key(table: str) -> Refusal:
    resource = f"'Microsoft.Dynamics.CRM.{table}'"
    return bad_query(
        f"The key in the request URI is not valid for resource {resource}. Ensure that the names "
        "and number of key properties match the declared or alternate key properties for the "
        f"resource {resource}."
    )


def bad_payload(entity_set: str, cause: str) -> Refusal:
    return Refusal(
        400,
        PAYLOAD,
        f"Error identified in Payload provided by the user for Entity :'{entity_set}'  ---->  "
        f"InnerException : Microsoft.OData.ODataException: {cause}",
    )


def lookup_as_column() -> Refusal:
    return bad_query(
        "CRM do not support direct update of Entity Reference properties, "
        "Use Navigation properties instead."
    )


def too_long(table: str, column: str, limit: int) -> Refusal:
    return Refusal(
        400,
        "0x80044331",
        f"A validation error occurred. The length of the '{column}' attribute of the '{table}' "
        f"entity exceeded the maximum allowed length of '{limit}'.",
    )


def outside_choice(table: str, column: str, value: int, accepted: list[int]) -> Refusal:
    """Dataverse quotes the value here, so the stand-in does: a caller must not log the text."""
    return Refusal(
        400,
        "0x8004431a",
        f"A validation error occurred. The value {value} of '{column}' on record of type "
        f"'{table}' is outside the valid range. Accepted Values: {','.join(map(str, accepted))}",
    )


def outside_range(table: str, column: str, value: float, *, whole: bool) -> Refusal:
    return Refusal(
        400,
        "0x8004432f" if whole else "0x80044330",
        f"A validation error occurred. The value {value} of '{column}' on record of type "
        f"'{table}' is outside the valid range.",
    )


def date_too_early(value: str) -> Refusal:
    return Refusal(
        400,
        "0x80040239",
        "DateTime is less than minumum value supported by CrmDateTime. "
        f"Actual value: {value}, Minimum value supported: 01/01/1753 00:00:00",
    )


def bad_status(table: str, state: str, status: int) -> Refusal:
    return Refusal(
        400,
        "0x80048408",
        f"{status} is not a valid status code for state code {table.capitalize()}State.{state}.",
    )


def cannot_be_null(name: str) -> Refusal:
    return bad_argument(f"Attribute: {name} cannot be set to NULL.")


def bad_argument(message: str) -> Refusal:
    return Refusal(400, "0x80040203", message)


def no_privilege(user: str, privilege: str) -> Refusal:
    return Refusal(
        403, "0x80040220", f"Principal user (Id={user}, type=8) is missing {privilege} privilege."
    )


def no_user() -> Refusal:
    return Refusal(403, "0x80072560", "The user is not a member of the organization.")


def duplicate() -> Refusal:
    return Refusal(
        412,
        "0x80040333",
        "A record was not created or updated because a duplicate of the current record already "
        "exists.",
    )


def plug_in_failed(message: str) -> Refusal:
    """An error that a custom API throws."""
    return Refusal(400, "0x80040265", message)


def no_row(table: str, row_id: str) -> Refusal:
    return Refusal(404, "0x80040217", f"Entity '{table}' With Id = {row_id} Does Not Exist")


def no_row_with_key(table: str) -> Refusal:
    return Refusal(
        404,
        "0x80060891",
        f"A record with the specified key values does not exist in {table} entity",
    )


def row_exists() -> Refusal:
    return Refusal(412, "0x80040237", "A record with matching key values already exists.")


def key_taken(key: str, columns: str) -> Refusal:
    return Refusal(
        412,
        "0x80060892",
        f"Entity Key {key} violated. A record with the same value for {columns} already exists. "
        "A duplicate record cannot be created. Select one or more unique values and try again.",
    )


def version_differs() -> Refusal:
    return Refusal(
        412,
        "0x80060882",
        "The version of the existing record doesn't match the RowVersion property provided.",
    )


def no_table(name: str) -> Refusal:
    return Refusal(
        404,
        "0x80040217",
        f"Could not find an entity with name {name} and id 00000000-0000-0000-0000-000000000000.",
    )


def table_exists() -> Refusal:
    """InvalidSchemaName. Its code is not certain, so the general one is used."""
    return bad_argument(
        "An entity with the specified name already exists. Please specify a unique name."
    )


def column_exists(table: str, name: str) -> Refusal:
    """DuplicateAttributeSchemaName"""
    text = f"Attribute with name '{name}' already exists on entity '{table}'."
    return Refusal(400, "0x80047013", text)


def bad_prefix(schema: str) -> Refusal:
    """The code is not certain, so the general one is used."""
    return bad_argument(
        f"Schema name '{schema}' does not start with the customization prefix of the publisher."
    )


def feed_failed() -> Refusal:
    """The feed's error is only in the plug-in trace log. The code is that of any plug-in."""
    return plug_in_failed("An error occurred when accessing the external data source.")


def token_expired() -> Refusal:
    """The code of Microsoft's table of error codes; its status is not documented.
    https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
    """
    text = "Version stamp associated with the client has expired. Please perform a full sync."
    return Refusal(400, "0x80044352", text)


def no_attribute(table: str, name: str) -> Refusal:
    return Refusal(404, "0x80040217", f"Could not find the attribute '{name}' of '{table}'.")
