"""What a vendor's console shows becomes the request that was sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.cli.captured_request import (
    EXAMPLE_ROOT,
    CapturedRequest,
    build_request,
    list_bodies,
    parse_captured,
)
from integration.core.errors import Misconfigured

BODY = b'{"a": "it\'s", "b":1}'
RAW = b"POST /api/senders/lab/fhir?x=1 HTTP/1.1\r\nHost: relay.example\r\nX-Sig: a b\r\n\r\n" + BODY


def test_a_raw_request_is_read_with_its_exact_body() -> None:
    found = parse_captured(RAW)
    assert (found.method, found.target) == ("POST", "/api/senders/lab/fhir?x=1")
    assert found.headers == {"host": "relay.example", "x-sig": "a b"}
    assert found.body == BODY
    assert build_request(found, None, "lab").url == "https://relay.example/api/senders/lab/fhir?x=1"


def test_headers_alone_are_a_post_to_the_senders_address() -> None:
    found = parse_captured(b"X-Sig: a\n\n" + BODY)
    assert (found.method, found.target, found.body) == ("POST", None, BODY)
    request = build_request(found, None, "lab")
    assert request.url == f"{EXAMPLE_ROOT}/api/senders/lab/fhir"


def test_the_public_address_replaces_what_the_request_says() -> None:
    for target in ("https://inside.example/api/fhir", "/api/fhir"):
        text = f"PUT {target} HTTP/1.1\nHost: inside.example\n\n".encode()
        request = build_request(parse_captured(text), "https://relay.example", "lab")
        assert (request.method, request.url) == ("PUT", "https://relay.example/api/fhir")


CURLS = {
    "one line": "curl https://r.example/api/fhir -H 'X-Sig: a' -d '{\"a\":1}'",
    "several lines": (
        "curl --request POST \\\n  --url https://r.example/api/fhir \\\n"
        "  --header 'X-Sig: a' \\\n  --data-raw '{\"a\":1}'\n"
    ),
    "of Windows": 'curl -X POST "https://r.example/api/fhir" ^\r\n -H "X-Sig: a" ^\r\n -d "{\\"a\\":1}"',
    "without blanks": "$ curl -s -XPOST -H'X-Sig: a' -d'{\"a\":1}' https://r.example/api/fhir",
    "of a browser": (
        "curl 'https://r.example/api/fhir' -H 'X-Sig: a' --compressed -o out "
        "--data-raw $'{\"a\"\\u003a1}'"
    ),
}


@pytest.mark.parametrize("command", CURLS.values(), ids=CURLS)
def test_a_curl_command_is_the_request_that_it_sends(command: str) -> None:
    found = parse_captured(command.encode())
    assert found == CapturedRequest(
        method="POST",
        target="https://r.example/api/fhir",
        headers={"x-sig": "a"},
        body=b'{"a":1}',
    )


def test_a_command_without_data_is_a_get_and_one_with_a_file_names_it() -> None:
    assert parse_captured(b"curl https://r.example/x").method == "GET"
    found = parse_captured(b"curl https://r.example/x --data-binary @body.json")
    assert (found.method, found.body, found.body_file) == ("POST", b"", "body.json")


def test_a_header_that_comes_twice_is_joined() -> None:
    assert parse_captured(b"A: 1\nA: 2\n\n").headers == {"a": "1,2"}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_end_of_line_after_the_body_may_be_the_editors(end: bytes) -> None:
    bodies = [found.body for found, _ in list_bodies(parse_captured(RAW + end))]
    assert bodies == [BODY + end, BODY]
    assert [found.body for found, _ in list_bodies(parse_captured(RAW))] == [BODY]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"", "no request"),
        (b'{"resourceType":"Patient","name":"Zaphkiel"}', "line 1 is no header"),
        (b"POST /x HTTP/1.1\nA: 1\nZaphkiel\n\n", "line 3 is no header"),
        (b"curl 'https://r.example", "quotation marks"),
        (b"curl -s", "neither an address"),
    ],
)
def test_what_is_no_request_is_told_and_not_quoted(text: bytes, part: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse_captured(text)
    assert part in str(caught.value)
    assert "Zaphkiel" not in str(caught.value)


@given(st.binary(max_size=300), st.sampled_from([b"", b"curl ", b"POST / HTTP/1.1\n", b"A: 1\n\n"]))
def test_whatever_is_pasted_is_read_or_refused(text: bytes, start: bytes) -> None:
    try:
        found = parse_captured(start + text)
    except Misconfigured:
        return
    assert build_request(found, None, "lab").url
