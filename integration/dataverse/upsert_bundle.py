"""The action `msind_UpsertBundle` of the Dataverse healthcare APIs. Pure.

It takes a resource, writes its rows by the maps of the data integration toolkit, and returns a
result for each row.

https://learn.microsoft.com/dynamics365/industry/healthcare/use-dataverse-healthcare-apis
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from integration.core import decimal_json
from integration.core.model import Request
from integration.dataverse import requests

NAME = "msind_UpsertBundle"

# A note may repeat the name of a table, never a text of the response.
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,99}")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Action(IntEnum):
    """What was done to a row."""

    CREATED = 935000000
    UPDATED = 935000001
    EXPANDED = 935000002  # a child's row


class Status(IntEnum):
    """Whether that succeeded."""

    SUCCESS = 935000000
    WARNING = 935000001
    ERROR = 935000002


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one row. `table`: "" if the response does not say. `row`: its key, if it was
    written."""

    table: str
    row: str | None
    action: Action | None
    status: Status


@dataclass(frozen=True, slots=True)
class UpsertResponse:
    """The results of a resource's rows. `succeeded`: all of them, without a warning."""

    results: tuple[Result, ...]
    succeeded: bool

    @property
    def root(self) -> Result | None:
        """The row of the resource itself, even if its children failed; None: it was not written."""
        roots = (result for result in self.results if result.action is not Action.EXPANDED)
        return next((result for result in roots if result.row), None)


def build_request(resource: Mapping[str, Any], tag: str) -> Request:
    """Return the request: the resource as a batch-response of one entry. The toolkit's logs show
    `tag`."""
    bundle = {
        "resourceType": "Bundle",
        "type": "batch-response",
        "entry": [{"resource": resource, "response": {"status": "200"}}],
    }
    text = decimal_json.encode(bundle).decode()
    return requests.build_action(NAME, {"msind_JSON": text, "msind_BundleTag": tag})


def parse_response(body: bytes, resource: str) -> UpsertResponse:
    """Return the results of `resource`, as `Type/id`. Its texts are ignored: they may quote values.

    Raises ValueError when the response is not as documented.
    """
    content = decimal_json.decode(body)
    if not (isinstance(content, dict) and isinstance(content.get("msind_Results"), list)):
        raise ValueError(f"not a response of {NAME}")
    results = tuple(
        _parse_result(result) for result in content["msind_Results"] if _is_about(result, resource)
    )
    successes = [
        content.get("msind_Status") is True,
        *(result.status is Status.SUCCESS for result in results),
    ]
    return UpsertResponse(results, all(successes) and bool(results))


def describe_problems(response: UpsertResponse) -> tuple[str, ...]:
    """Return what did not succeed: tables and statuses, each combination once."""
    if not response.results:
        return (f"{NAME} returned no result: is the entity map of its type enabled there?",)
    problems = [
        f"{result.table or 'a row'}: {result.status.name.lower()}"
        for result in response.results
        if result.status is not Status.SUCCESS
    ]
    if not (problems or response.succeeded):
        problems = [f"{NAME} did not succeed and does not say for which row"]
    return tuple(dict.fromkeys(problems))


def _is_about(result: Any, resource: str) -> bool:
    if not isinstance(result, dict):
        return False
    reported = f"{result.get('msind_fhirresourcetype')}/{result.get('msind_fhirresourceid')}"
    return reported == resource


def _parse_result(reported: Mapping[str, Any]) -> Result:
    table, row = reported.get("msind_resultingrecordtype"), reported.get("msind_resultingrecordid")
    action, status = (
        reported.get("msind_requestactionperformed"),
        reported.get("msind_requeststatus"),
    )
    key = row.lower() if isinstance(row, str) else ""
    return Result(
        table if isinstance(table, str) and _TABLE.fullmatch(table) else "",
        key if _GUID.fullmatch(key) else None,
        Action(action) if action in list(Action) else None,
        # An unknown status is no success.
        Status(status) if status in list(Status) else Status.ERROR,
    )
