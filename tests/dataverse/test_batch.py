"""Several requests in one, and the answers in their order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.model import Response
from integration.dataverse.batch import build_batch, build_change_set, parse_responses
from integration.dataverse.requests import Change, build_change, build_row_query
from local.dataverse.app import create_app
from tests.dataverse.organization import Organization

ROWS = [f"0b6d3d3e-9c4b-4a53-8f1f-00000000000{n}" for n in range(3)]
ASKED = build_row_query("contacts", ["contactid"], f"contactid eq {ROWS[0]}")


def created(row: str, **columns: object) -> Change:
    return Change(
        method="PATCH",
        entity_set="contacts",
        key=row,
        columns={"lastname": "Sampleton", **columns},
        only_new=True,
    )


async def said(*changes: Change) -> list[Response]:
    """What the stand-in for Dataverse answers, and what it has then."""
    async with Organization(create_app()) as organization:
        done = parse_responses(
            await organization.send(build_change_set([build_change(each) for each in changes]))
        )
        found = parse_responses(await organization.send(build_batch([ASKED, ASKED])))
    return [*done, *found]


async def test_a_change_set_is_answered_part_by_part() -> None:
    made = [
        created(ROWS[0]),
        Change(method="PATCH", entity_set="contacts", key=ROWS[0], columns={"firstname": "Ö"}),
    ]
    first, second, found, again = await said(*made)
    assert (first.status, second.status, found.status) == (204, 204, 200)
    assert found.body == again.body
    assert ROWS[0].encode() in found.body


async def test_of_a_change_set_that_fails_nothing_is_done_and_the_error_is_told() -> None:
    long = created(ROWS[1], suffix="much too long for it")
    error, found, _ = await said(created(ROWS[0]), long)
    assert error.status == 400
    assert b"0x" in error.body
    assert ROWS[0].encode() not in found.body


@pytest.mark.parametrize(
    "response",
    [
        Response(200, {}, b""),
        Response(200, {"content-type": "application/json"}, b"{}"),
        Response(
            200, {"content-type": "multipart/mixed; boundary=x"}, b"--x\r\n\r\nhello\r\n--x--"
        ),
        Response(
            200,
            {"content-type": "multipart/mixed; boundary=x"},
            b"--x\r\nContent-Type: application/http\r\n\r\nnothing\r\n--x--",
        ),
        Response(
            200,
            {"content-type": "multipart/mixed; boundary=x"},
            b"--x\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}",
        ),
    ],
)
def test_what_is_no_answer_to_a_batch_is_not_taken_for_one(response: Response) -> None:
    with pytest.raises(ValueError, match=r"part|multipart"):
        parse_responses(response)


def test_a_boundary_may_be_quoted_and_begin_like_another() -> None:
    head = b"Content-Type: application/http\r\n\r\nHTTP/1.1 204 No Content\r\nA: b\r\n\r\n"
    inner = b"--x1\r\n" + head + b"--x\r\n--x1--\r\n"
    body = b'before\r\n--x  \r\ncontent-type: Multipart/Mixed; boundary="x1"\r\n\r\n' + inner
    headers = {"content-type": 'multipart/mixed; charset=utf-8; boundary="x"'}
    # The line `--x` inside ends the part: no content of a part may hold its boundary.
    with pytest.raises(ValueError, match="cut off"):
        parse_responses(Response(200, headers, body + b"--x--\r\nafter"))
    found = parse_responses(
        Response(200, headers, body.replace(b"--x\r\n--x1", b"--xy\r\n--x1") + b"--x--\r\nafter")
    )
    assert found == [Response(204, {"a": "b"}, b"--xy")]


@given(st.lists(st.text(max_size=80), min_size=1, max_size=4))
def test_no_content_can_end_its_part(texts: list[str]) -> None:
    changes = [build_change(created(ROWS[0], description=text)) for text in texts]
    sent = build_change_set(changes)
    body, outer = sent.body or b"", sent.headers["content-type"].partition("boundary=")[2]
    inner = body.partition(b"boundary=")[2].partition(b"\r\n")[0]
    assert body.count(b"--" + outer.encode()) == 2
    assert body.count(b"--" + inner) == len(texts) + 1


def test_the_same_requests_are_the_same_bytes() -> None:
    assert build_batch([ASKED]) == build_batch([ASKED])
