"""Whatever a client sends is answered, or refused as a mistake of the client: never as a failure.

Valid queries and bodies are mutated at random: see `tests/randomness.py`. 501 says that OData has
more than the feed offers, and is a refusal, too. The FHIR server is one in memory that refuses
whatever value no FHIR server takes: no query must become such a search.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest

from integration.core import decimal_json
from integration.core.errors import Rejected
from integration.odata.model import EntityType, Type
from integration.virtual_tables.answer import answer_request
from integration.virtual_tables.odata_request import ODataRequest
from tests.randomness import make_random, scale
from tests.virtual_tables import rich
from tests.virtual_tables.conftest import ROOT, SHAPES, Feed, Json
from tests.virtual_tables.scripted import scripted

QUERIES, BODIES = scale(1500), scale(300)

TYPES = ("Observation", "Condition", "Encounter", "Location", "Task", "MedicationRequest")
ROWS = 4

# -- a FHIR server ---------------------------------------------------------------------------------

_DATE = re.compile(r"(?:ge|le)?[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_REFERENCE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_DATES = {
    attribute.virtual_column.search.name
    for shape in SHAPES.values()
    for attribute in shape.attributes.values()
    if attribute.virtual_column.search and attribute.virtual_column.search.type == "date"
}
_REFERENCES = {
    attribute.virtual_column.search.name
    for shape in SHAPES.values()
    for attribute in shape.attributes.values()
    if attribute.virtual_column.search and attribute.virtual_column.search.type == "reference"
}
_OUTCOME = {"resourceType": "OperationOutcome"}


class Server:
    """Its resources, and the searches that it has refused."""

    def __init__(self) -> None:
        self.stored: dict[str, Json] = {}
        self.refused: list[str] = []
        for type_ in (*TYPES, "Patient"):
            for number in range(1, ROWS + 1):
                id_ = str(UUID(int=number)) if number % 2 else f"{type_}.{number}"
                meta = {"versionId": "1", "lastUpdated": "2024-01-02T03:04:05.678+00:00"}
                made = rich.resource(type_, id_, {}) if type_ != "Patient" else {}
                self.stored[f"{type_}/{id_}"] = {
                    **made,
                    **{"resourceType": type_, "id": id_, "meta": meta},
                }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.strip("/")
        if request.method == "PUT":
            resource = decimal_json.decode(request.content)
            version = int(self.stored.get(name, {"meta": {"versionId": "0"}})["meta"]["versionId"])
            resource["meta"] = {**resource["meta"], "versionId": str(version + 1)}
            return httpx.Response(200, content=decimal_json.encode(resource))
        if request.method == "DELETE":
            return httpx.Response(204)
        if request.method == "POST":
            entries = [{"response": {"status": "200"}}]
            return httpx.Response(200, json={"resourceType": "Bundle", "entry": entries})
        if "/" in name:
            found = self.stored.get(name)
            content = decimal_json.encode(found or _OUTCOME)
            return httpx.Response(200 if found else 404, content=content)
        return self.search(name, request.url)

    def search(self, type_: str, url: httpx.URL) -> httpx.Response:
        asked = url.params.multi_items()
        wrong = [name for name, value in asked if not _is_taken(name, value)]
        if wrong or len(str(url)) > 8000:
            self.refused.append(str(url)[:300])
            return httpx.Response(400, json=_OUTCOME)
        found = [item for item in self.stored.values() if item["resourceType"] == type_]
        if ("_summary", "count") in asked:
            return httpx.Response(200, json={"resourceType": "Bundle", "total": len(found)})
        parameters = dict(asked)
        first, size = int(parameters.get("ct", 0)), int(parameters.get("_count", 10))
        body: Json = {
            "resourceType": "Bundle",
            "entry": [{"resource": item} for item in found[first : first + size]],
        }
        if first + size < len(found):
            link = str(url.copy_set_param("ct", str(first + size)))
            body["link"] = [{"relation": "next", "url": link}]
        return httpx.Response(200, content=decimal_json.encode(body))


def _is_taken(name: str, value: str) -> bool:
    if name == "_lastUpdated" or name in _DATES:
        return _DATE.fullmatch(value) is not None
    if name == "_id":
        return all(map(_ID.fullmatch, value.split(",")))
    if name in _REFERENCES:
        return all(map(_REFERENCE.fullmatch, value.split(",")))
    return value != "" and _CONTROL.search(value) is None


# -- valid requests --------------------------------------------------------------------------------

_LONG = ",".join(f"'{'|' * 90}{number}'" for number in range(45))  # for a list of `in`

_LITERALS: dict[Type, Sequence[str]] = {
    Type.STRING: ("'Weight'", "'a''b'", "''", "'8867-4'", "'a\x00b\x1f'", _LONG, "'x,y|z$\\'"),
    Type.GUID: (str(UUID(int=1)), str(UUID(int=0)), "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"),
    Type.DATE_TIME_OFFSET: (
        *("2024-01-02T03:04:05Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z"),
        *("0999-06-01T00:00:00+14:00", "2024-02-29", "2016-12-31T23:59:60Z"),
    ),
    Type.INT32: ("935000002", "-1", "0", "99999999999999999999"),
    Type.INT64: ("1",),
    Type.DECIMAL: ("7.50", "-1e9", "1e400", "0.000"),
    Type.BOOLEAN: ("true", "false"),
}
_PIECES = [
    *("and", "or", "not", "eq", "ne", "lt", "in", "null", "true", "(", ")", ",", "'", "''", "/"),
    *("contains(", "tolower(", "startswith(", "any(", "year(", "add", "$it", "@p", "*", " ", "%"),
    *("%00", "%25", "%C3", "%ZZ", "\x00", "\x1f", "\ud7ff", "\U0001f600", "\u0130", "\u2028", "+"),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9" * 40, "-0", "1e999", "NaN", "INF", "&"),
    *("$top=0", "$skip=9999999999", "$count=true", "$orderby=", "$skiptoken=", "=", "#", "((((("),
    *("x" * 300, "not " * 60, "(" * 60, "00000000-0000-0000-0000-000000000000"),
]


def _comparison(r: random.Random, type_: EntityType) -> str:
    item = r.choice(type_.properties)
    literal = r.choice([*_LITERALS[item.type], "null"])
    match r.randrange(5):
        case 0 if item.type is Type.STRING:
            function = r.choice(["contains", "startswith", "endswith"])
            return f"{function}({item.name},{literal})"
        case 1:
            return f"{item.name} in ({literal},{r.choice(_LITERALS[item.type])})"
        case 2:
            return f"not ({item.name} eq {literal})"
    operator = r.choice(["eq", "ne", "lt", "le", "gt", "ge"])
    return f"{item.name} {operator} {literal}"


def _query(r: random.Random, type_: EntityType) -> list[str]:
    parts = [_comparison(r, type_) for _ in range(r.randrange(1, 4))]
    names = [item.name for item in type_.properties]
    options = [
        f"$filter={r.choice([' and ', ' or ']).join(parts)}",
        f"$orderby={r.choice(names)} {r.choice(['asc', 'desc', ''])}".strip(),
        f"$select={','.join(r.sample(names, 2))}",
        f"$top={r.randrange(9)}",
        f"$skip={r.randrange(9)}",
        f"$count={r.choice(['true', 'false'])}",
        f"$format={r.choice(['json', 'application/json;odata.metadata=full'])}",
    ]
    return r.sample(options, r.randrange(1, 5))


def _path(r: random.Random, type_: EntityType) -> str:
    key = UUID(int=r.randrange(4))
    return r.choice(
        [*[type_.set] * 14, f"{type_.set}/$count", f"{type_.set}({key})", "", "$metadata"]
    )


def _headers(r: random.Random) -> dict[str, str]:
    choices = {
        "prefer": ["odata.maxpagesize=2", "return=minimal", "odata.maxpagesize=-1,,=;"],
        "accept": ["application/json;IEEE754Compatible=true", "*/*;q=0", "text/html, */*;q=0.1"],
        "if-match": ["*", 'W/"1"', '"0"', "x"],
        "if-none-match": ["*", 'W/"1"', "", '"1", "2'],
        "odata-version": ["4.0", "4.0;NetFx", "3.0"],
        "odata-maxversion": ["4.01", "4.0;NetFx", "\u0664.0"],
    }
    return {name: r.choice(values) for name, values in choices.items() if r.random() < 0.04}


# -- mutations -------------------------------------------------------------------------------------


def _mutate(r: random.Random, text: str) -> str:
    for _ in range(r.choice([0, 1, 1, 2, 3, 6])):
        start = r.randrange(len(text) + 1)
        end = min(len(text), start + r.choice([0, 1, 1, 2, 8]))
        match r.randrange(6):
            case 0:
                piece = ""
            case 1:
                piece = text[start:end] * 2
            case 2:
                piece = chr(r.choice([r.randrange(128), r.randrange(0x300), r.randrange(0xD800)]))
            case 3:
                piece = text[start:end].swapcase()
            case _:
                piece = r.choice(_PIECES)
        text = text[:start] + piece + text[end:]
    return text


def _encode(r: random.Random, options: Sequence[str]) -> str:
    """As clients do; some leave alone what they should not."""
    text = "&".join(_mutate(r, option) if r.random() < 0.4 else option for option in options)
    encoded = quote(text, safe="=&$,():@/%'*+" if r.random() < 0.5 else "=&$")
    return _mutate(r, encoded) if r.random() < 0.2 else encoded


_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 2**31, 2**63, 10**40, 1.5, 1e300, "", " ", "x" * 5000, [], {}),
    *([None], {"a": {"b": []}}, "null", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z"),
    *("2024-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00", "2024-02-30T00:00:00Z"),
    *(str(UUID(int=0)), str(UUID(int=1)), str(UUID(int=99)), "\u0000", "\ud7ff\u2028", "a\nb\t"),
    *("\U0001f600" * 200, "\u0130", "urn:x", "../x", "<b>", "1e5", "NaN"),
]


def _body(r: random.Random, type_: EntityType, rows: Sequence[Json]) -> bytes:
    """Some columns of a row as it is shown, each perhaps with another value."""
    row = r.choice(rows)
    names = r.sample(list(row), r.randrange(1, 5))
    stated = {name: row[name] for name in names if "@" not in name}
    if r.random() < 0.3:
        stated["_msemr_subjectpatient_value"] = str(UUID(int=1))
    for name in list(stated):
        if r.random() < 0.3:
            stated[name] = r.choice(_VALUES)
        if r.random() < 0.1:
            stated[_mutate(r, name)] = stated.pop(name)
    if r.random() < 0.05:
        stated[r.choice(["@odata.type", "x@odata.bind", "a@b", "@removed", "@"])] = {"a": 1}
    text = json.dumps(stated, ensure_ascii=r.random() < 0.5, default=float)
    if r.random() < 0.2:
        text = _mutate(r, text)
    encoding = r.choice(["utf-8"] * 9 + ["utf-16"])
    return text.encode(encoding, "surrogatepass")


# -- asking ----------------------------------------------------------------------------------------


async def _ask(feed: Feed, request: ODataRequest) -> int:
    try:
        answer = await answer_request(feed.tables, request, feed.reader)
    except Rejected as error:
        return error.status
    if answer.body and answer.headers["Content-Type"].startswith("application/json"):
        json.loads(answer.body)
    return answer.status


async def _run(
    name: str, number: int, make: Callable[[random.Random, EntityType], ODataRequest]
) -> Counter[int]:
    r, statuses = make_random(name), Counter[int]()
    server = Server()
    async with scripted(server) as feed:
        for _ in range(number):
            request = make(r, SHAPES[r.choice(TYPES)].type)
            try:
                status = await _ask(feed, request)
            except Exception as error:
                raise AssertionError(f"{type(error).__name__}: {request}") from error
            assert status < 500 or status == 501, request
            statuses[status] += 1
            feed.asked.clear()
    assert server.refused == []
    return statuses


@pytest.mark.seeded
async def test_mutated_queries_are_answered_or_refused(record_property: Any) -> None:
    def make(r: random.Random, type_: EntityType) -> ODataRequest:
        path = _path(r, type_)
        return ODataRequest(
            method=r.choice(["GET"] * 8 + ["HEAD", "OPTIONS"]),
            root=ROOT,
            path=_mutate(r, path) if r.random() < 0.05 else path,
            query=_encode(r, _query(r, type_)),
            headers=_headers(r),
        )

    statuses = await _run("queries", QUERIES, make)
    record_property("mutated queries by status", str(dict(sorted(statuses.items()))))
    assert statuses[200] > QUERIES / 20
    assert statuses[400] > QUERIES / 20


@pytest.mark.seeded
async def test_mutated_bodies_are_written_or_refused(record_property: Any) -> None:
    async with scripted(Server()) as feed:
        rows = {SHAPES[name].type.set: await feed.every(SHAPES[name].type.set) for name in TYPES}

    def make(r: random.Random, type_: EntityType) -> ODataRequest:
        row = f"{type_.set}({rows[type_.set][r.randrange(ROWS)][type_.key]})"
        kind = r.choice(["application/json"] * 8 + ["application/json;IEEE754Compatible=true", "x"])
        return ODataRequest(
            method=(method := r.choice(["PATCH", "PATCH", "POST"])),
            root=ROOT,
            path=row if method == "PATCH" else type_.set,
            query="",
            headers={**_headers(r), "content-type": kind},
            body=_body(r, type_, rows[type_.set]),
        )

    statuses = await _run("bodies", BODIES, make)
    record_property("mutated bodies by status", str(dict(sorted(statuses.items()))))
    assert statuses[204] > BODIES / 50
    assert statuses[400] > BODIES / 20
