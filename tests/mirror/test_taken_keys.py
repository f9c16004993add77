"""A row that an alternate key forbids: the note names the key, its columns, and the other row."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from integration.core.model import Column, RowResult, WorkItem
from integration.dataverse.alternate_keys import AlternateKey, build_condition, merge_values
from integration.dataverse.requests import Change
from integration.journal.attention import ConcernFilter
from integration.mirror import mirror as mirroring
from tests.builders import Body, patient
from tests.conftest import Route
from tests.mirror.plug_ins import Particular

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
OTHER = "2c0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d22"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
MAIL = "anna.secret@example.org"
BY_MAIL = {"name": "by_mail", "columns": ["emailaddress1"]}
BY_NAME = {"name": "by_name", "columns": ["lastname", "gendercode"]}


class Guarded(Particular):
    """An organisation in which this app may not read some addresses. `asked`: the addresses."""

    def __init__(self) -> None:
        super().__init__({"contact": {"keys": [BY_NAME, BY_MAIL]}})
        self.hidden: tuple[bytes, int] | None = None  # a part of a request, and its answer
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        content = await request.aread()
        if self.hidden is not None and self.hidden[0] in content:
            status = self.hidden[1]
            part = (
                "--b\r\nContent-Type: application/http\r\n\r\n"
                f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\n\r\n{{}}\r\n"
            )
            text = part * content.count(b"GET ") + "--b--\r\n"
            headers = {"content-type": "multipart/mixed; boundary=b"}
            return httpx.Response(200, content=text.encode(), headers=headers)
        return await super().handle_async_request(request)


@pytest.fixture
def dataverse() -> Iterator[Guarded]:
    found = Guarded()
    yield found
    found.app.close()


def anna(**elements: Any) -> Body:
    return patient(id=ANNA, telecom=[{"system": "email", "value": MAIL}], **elements)


async def mirror(route: Route, resource: Body) -> RowResult:
    name = route.fhir_double.add(resource)
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=name))
    noted = {row.resource: row for row in await route.journal.list_row_results(DELIVERY)}
    return noted[name]


async def test_the_note_names_the_key_its_columns_and_the_other_row(
    route: Route, dataverse: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="integration")
    await dataverse.write(OTHER, lastname="Practice", emailaddress1=MAIL.upper())
    noted = await mirror(route, anna())
    assert noted.action == "refused"
    told = f"alternate key by_mail (emailaddress1) of contact is taken by contact({OTHER})"
    assert noted.notes[0].startswith(told)
    (concern,) = (await route.journal.list_concerns(ConcernFilter(), 10, None)).concerns
    assert concern.reason.startswith(told)
    shown = " ".join((*noted.notes, concern.reason, caplog.text, *dataverse.asked)).lower()
    assert "secret" not in shown, "a value stands in a note, a log or an address"


async def test_a_key_of_several_columns_is_named_with_all_of_them_also_for_an_update(
    route: Route, dataverse: Guarded
) -> None:
    """Only one of its columns changes, and the update names no other."""
    await mirror(route, anna(name=[{"family": "First"}], gender="female"))
    await dataverse.write(OTHER, lastname="Second", gendercode=2)
    noted = await mirror(route, anna(name=[{"family": "Second"}], gender="female"))
    assert noted.action == "refused"
    told = f"alternate key by_name (lastname, gendercode) of contact is taken by contact({OTHER})"
    assert noted.notes[0].startswith(told)


@pytest.mark.parametrize("status", [403, 404])
async def test_where_the_keys_cannot_be_read_it_is_said_where_to_look(
    route: Route, dataverse: Guarded, status: int
) -> None:
    await dataverse.write(OTHER, emailaddress1=MAIL)
    dataverse.hidden = (b"/Keys?", status)
    noted = await mirror(route, anna())
    assert noted.action == "refused"
    assert "Power Apps lists them (Tables, contact, Keys)" in noted.notes[0]


async def test_where_the_other_row_cannot_be_seen_the_keys_are_named(
    route: Route, dataverse: Guarded
) -> None:
    await dataverse.write(OTHER, emailaddress1=MAIL)
    dataverse.hidden = (b"emailaddress1%20eq", 403)
    noted = await mirror(route, anna())
    assert noted.action == "refused"
    assert "by_name (lastname, gendercode), by_mail (emailaddress1)" in noted.notes[0]
    assert OTHER not in noted.notes[0]


COLUMNS = {
    column.name: column
    for column in (
        Column("name", "String"),
        Column("size", "Integer"),
        Column("born", "DateTime"),
        Column("owner", "Lookup", targets={"contact": "owner_contact"}),
    )
}


@pytest.mark.parametrize(
    ("columns", "condition"),
    [
        (("name",), "name eq 'O''Hara'"),
        (("size", "born"), "size eq 7 and born eq 1980-02-01"),
        (("owner",), f"_owner_value eq {OTHER}"),
        (("name", "missing"), None),
    ],
)
def test_a_condition_has_each_value_as_its_column_does(
    columns: tuple[str, ...], condition: str | None
) -> None:
    body = {"name": "O'Hara", "size": 7, "owner_contact@odata.bind": f"contacts({OTHER})"}
    change = Change("PATCH", "things", ANNA, columns=json.loads(json.dumps(body)))
    values = merge_values(COLUMNS, {"born": "1980-02-01", "name": "before"}, change)
    assert build_condition(AlternateKey("key", columns), COLUMNS, values) == condition
