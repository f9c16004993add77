"""What an error of Dataverse means: its code says it, and its status where the code is not known."""

from __future__ import annotations

import json

import pytest

from integration.core.model import Response
from integration.dataverse.error_codes import (
    Meaning,
    describe_failure,
    read_error_code,
    read_meaning,
)


def answer(status: int, code: str = "") -> Response:
    body = {"error": {"code": code, "message": "Anna Muster"}} if code else {}
    return Response(status, {}, json.dumps(body).encode())


@pytest.mark.parametrize("status", [400, 412, 500])
def test_a_duplicate_is_one_whatever_status_it_has(status: int) -> None:
    assert read_meaning(answer(status, "0x80040333")) is Meaning.DUPLICATE


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (412, "0x80060882", Meaning.CHANGED),
        (412, "0x80040237", Meaning.CHANGED),
        (412, "0x80060892", Meaning.KEY_TAKEN),
        (400, "0x80060892", Meaning.KEY_TAKEN),
        (404, "0x80040217", Meaning.GONE),
        (400, "0x80040220", Meaning.NO_RIGHTS),
        (403, "0x80072560", Meaning.NO_RIGHTS),
        (400, "0x80072322", Meaning.BUSY),
        (500, "0x80044151", Meaning.BUSY),
        (400, "0x80040265", Meaning.REFUSED),
    ],
)
def test_a_known_code_decides(status: int, code: str, meaning: Meaning) -> None:
    assert read_meaning(answer(status, code)) is meaning
    assert read_meaning(answer(status, code.upper().replace("X", "x"))) is meaning


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (400, Meaning.REFUSED),
        (401, Meaning.NO_RIGHTS),
        (403, Meaning.NO_RIGHTS),
        (404, Meaning.GONE),
        (408, Meaning.BUSY),
        (412, Meaning.CHANGED),
        (413, Meaning.REFUSED),
        (429, Meaning.BUSY),
        (500, Meaning.BUSY),
        (503, Meaning.BUSY),
    ],
)
@pytest.mark.parametrize("code", ["", "0x80048408"])
def test_the_status_decides_where_the_code_is_not_known(
    status: int, meaning: Meaning, code: str
) -> None:
    assert read_meaning(answer(status, code)) is meaning


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"<html>", b"{}", b'{"error": "no"}', b'{"error": null}']
)
def test_an_answer_without_a_code_has_none(body: bytes) -> None:
    assert read_error_code(Response(502, {}, body)) == ""


def test_a_code_may_be_written_as_a_decimal_number() -> None:
    assert read_error_code(answer(412, "-2147220685")) == "0x80040333"


def test_a_failure_is_described_without_its_message() -> None:
    described = describe_failure(answer(412, "0x80040333"))
    why = "a rule of the organisation takes another row for the same"
    assert described.startswith(f"answered 412 0x80040333 ({why}. The rules are in ")
    assert "Duplicate detection rules" in described, "Dataverse names neither rule nor row"
    assert describe_failure(answer(400, "0x80040265")) == "answered 400 0x80040265"
    assert describe_failure(Response(502, {}, b"")) == "answered 502"
