"""`msind_UpsertBundle` of the Dataverse healthcare APIs: a resource in, rows written by the maps of
the data integration toolkit, a result for each row. Pure.

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

# What a note may repeat: the name of a table, never a text.
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,99}")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Action(IntEnum):
    """Of which kind a row is, and what was done to it."""

    CREATED = 935000000
    UPDATED = 935000001
    EXPANDED = 935000002  # a child's row


class Status(IntEnum):
    """How it went."""

    SUCCESS = 935000000
    WARNING = 935000001
    ERROR = 935000002


@dataclass(frozen=True, slots=True)
class Result:
    """One row. `table`: "" where the answer does not say; `row`: its key, if it is written."""

    table: str
    row: str | None
    action: Action | None
    status: Status


@dataclass(frozen=True, slots=True)
class UpsertResponse:
    """What was said of a resource's rows. `fine`: all went well, without a warning."""

    results: tuple[Result, ...]
    succeeded: bool

    @property
    def root(self) -> Result | None:
        """The resource's own row, though its children may have failed; None: it is not written."""
        roots = (result for result in self.results if result.action is not Action.EXPANDED)
        return next((result for result in roots if result.row), None)


def build_request(resource: Mapping[str, Any], tag: str) -> Request:
    """The resource as a batch-response of one entry; `tag` is shown in the toolkit's logs."""
    bundle = {
        "resourceType": "Bundle",
        "type": "batch-response",
        "entry": [{"resource": resource, "response": {"status": "200"}}],
    }
    text = decimal_json.encode(bundle).decode()
    return requests.build_action(NAME, {"msind_JSON": text, "msind_BundleTag": tag})


def parse_response(body: bytes, resource: str) -> UpsertResponse:
    """What became of Type/id. Raises ValueError for what is no such answer.

    Its texts are not read: they may quote values.
    """
    content = decimal_json.decode(body)
    if not (isinstance(content, dict) and isinstance(content.get("msind_Results"), list)):
        raise ValueError(f"no answer of {NAME}")
    results = tuple(
        _parse_result(result) for result in content["msind_Results"] if _is_about(result, resource)
    )
    successes = [
        content.get("msind_Status") is True,
        *(result.status is Status.SUCCESS for result in results),
    ]
    return UpsertResponse(results, all(successes) and bool(results))


def describe_problems(response: UpsertResponse) -> tuple[str, ...]:
    """What did not go well: tables and how it went, once for many rows alike."""
    if not response.results:
        return (f"{NAME} says nothing of it: is the entity map of its type enabled there?",)
    problems = [
        f"{result.table or 'a row'}: {result.status.name.lower()}"
        for result in response.results
        if result.status is not Status.SUCCESS
    ]
    if not (problems or response.succeeded):
        problems = [f"{NAME} was not successful and does not say where"]
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
        # What nobody knows is no success.
        Status(status) if status in list(Status) else Status.ERROR,
    )
