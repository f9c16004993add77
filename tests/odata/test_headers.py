"""Formats, versions, preferences and entity tags."""

from __future__ import annotations

import pytest

from integration.odata.headers import (
    Format,
    IfMatch,
    Preferences,
    build_headers,
    check_versions,
    format_etag,
    negotiate_format,
    negotiate_metadata_format,
    parse_body_format,
    parse_if_match,
    parse_preconditions,
    parse_preferences,
)
from tests.odata.sets import refusal

MINIMAL = Format()


@pytest.mark.parametrize(
    ("accept", "option", "expected"),
    [
        (None, None, MINIMAL),
        ("", None, MINIMAL),
        ("*/*", None, MINIMAL),
        ("application/*", None, MINIMAL),
        ("application/json", None, MINIMAL),
        ("Application/JSON; odata.metadata=Full", None, Format("full")),
        ("application/json;metadata=none", None, Format("none")),
        ("application/json;odata.streaming=true;charset=utf-8", None, MINIMAL),
        ("application/json;IEEE754Compatible=true", None, Format(ieee754=True)),
        ('application/json;odata.metadata="full"', None, Format("full")),
        ("text/html,application/xhtml+xml,*/*;q=0.8", None, MINIMAL),
        ("application/atom+xml,application/json;odata.metadata=full", None, Format("full")),
        (
            "application/json;odata.metadata=none;q=0.2,application/json;odata.metadata=full",
            None,
            Format("full"),
        ),
        ("application/json;odata.metadata=most,*/*", None, MINIMAL),
        ("text/html", "json", MINIMAL),
        ("text/html", "application/json;odata.metadata=full", Format("full")),
    ],
)
def test_the_format_is_what_the_client_likes_best(
    accept: str | None, option: str | None, expected: Format
) -> None:
    assert negotiate_format(accept, option) == expected


@pytest.mark.parametrize(
    ("accept", "option"),
    [
        ("text/html", None),
        ("application/json;q=0", None),
        ("application/json;odata.metadata=verbose", None),
        ("application/json", "xml"),
        ("application/json", "atom"),
        (None, ""),
    ],
)
def test_what_is_not_json_is_not_acceptable(accept: str | None, option: str | None) -> None:
    assert refusal(lambda: negotiate_format(accept, option)).status == 406


def test_a_format_tells_its_content_type() -> None:
    assert MINIMAL.content_type == "application/json;odata.metadata=minimal"
    full = Format("full", ieee754=True).content_type
    assert full == "application/json;odata.metadata=full;IEEE754Compatible=true"
    assert negotiate_format(full) == Format("full", ieee754=True)
    assert build_headers(full) == {"OData-Version": "4.0", "Content-Type": full}
    assert build_headers() == {"OData-Version": "4.0"}


@pytest.mark.parametrize(
    ("accept", "option", "max_version", "expected"),
    [
        (None, None, None, "xml"),
        ("*/*", None, None, "xml"),
        ("application/xml", None, None, "xml"),
        ("application/json", None, None, "json"),
        ("application/json", None, "4.01", "json"),
        ("application/json", None, "4.0", "xml"),
        ("application/xml;q=0.5,application/json", None, None, "json"),
        (None, "json", "4.0", "json"),
        ("application/json", "xml", None, "xml"),
    ],
)
def test_metadata_is_xml_unless_json_is_preferred(
    accept: str | None, option: str | None, max_version: str | None, expected: str
) -> None:
    assert negotiate_metadata_format(accept, option, max_version) == expected


def test_metadata_comes_in_no_other_format() -> None:
    assert refusal(lambda: negotiate_metadata_format("text/html")).status == 406
    assert refusal(lambda: negotiate_metadata_format(None, "atom")).status == 406


@pytest.mark.parametrize("max_version", [None, "4.0", "4.01", "5.0", "4.0;NetFx"])
@pytest.mark.parametrize("version", [None, "4.0", " 4.01 ", "4.0;NetFx", "4.0; SomethingElse"])
def test_versions_from_4_0_on_are_spoken(version: str | None, max_version: str | None) -> None:
    check_versions(version, max_version)


@pytest.mark.parametrize(
    ("version", "max_version", "target"),
    [
        ("3.0", None, "OData-Version"),
        ("5.0", None, "OData-Version"),
        ("x", None, "OData-Version"),
        (None, "3.0", "OData-MaxVersion"),
        (None, "x", "OData-MaxVersion"),
    ],
)
def test_other_versions_are_refused(
    version: str | None, max_version: str | None, target: str
) -> None:
    refused = refusal(lambda: check_versions(version, max_version))
    assert (refused.status, refused.issues[0].expression) == (400, target)


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        (None, Preferences()),
        ("odata.maxpagesize=50", Preferences(50)),
        ("maxpagesize=50; x=1, return=representation", Preferences(50, True)),
        ('Return="minimal"', Preferences(None, False)),
        ("return=minimal, return=representation", Preferences(None, False)),
        ("odata.maxpagesize=0", Preferences()),
        ("odata.maxpagesize=-1, respond-async", Preferences()),
        ("odata.maxpagesize=99999999999999999999", Preferences()),
        ('odata.include-annotations="*"', Preferences()),
        ("return=everything", Preferences()),
        (",,=,;", Preferences()),
    ],
)
def test_preferences_are_taken_where_understood(prefer: str | None, expected: Preferences) -> None:
    assert parse_preferences(prefer) == expected


def test_what_was_applied_is_told() -> None:
    assert Preferences(500, True).format_page_size(100) == "odata.maxpagesize=100"
    assert Preferences(500, False).format_return() == "return=minimal"
    assert Preferences().format_page_size(100) is None
    assert Preferences(500).format_return() is None


def test_bodies_are_json() -> None:
    assert not parse_body_format("application/json")
    assert not parse_body_format("application/json; charset=utf-8;odata.metadata=minimal")
    assert parse_body_format("application/json;IEEE754Compatible=true")
    for name in (None, "", "text/plain", "application/xml"):
        assert refusal(lambda name=name: parse_body_format(name)).status == 415


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/json;charset=utf-16", None),
        ('application/json; charset="UTF-16LE"', None),
        ("application/json;charset=iso-8859-1", None),
        ("application/json", "gzip"),
    ],
)
def test_bodies_are_in_utf_8_as_they_are(content_type: str, encoding: str | None) -> None:
    assert refusal(lambda: parse_body_format(content_type, encoding)).status == 415
    assert not parse_body_format('application/json;charset="UTF-8"', "identity")


def test_the_conditions_of_a_request_hold_for_a_version_or_not() -> None:
    both = parse_preconditions({"if-match": '"1", "2"', "if-none-match": '"2"'})
    assert [both.allow(version) for version in ("1", "2", "3")] == [True, False, False]
    assert both.names_version
    anything = parse_preconditions({"if-match": "*"})
    assert anything.allow("1")
    assert not anything.names_version
    assert not parse_preconditions({"if-none-match": "*"}).allow("1")
    assert parse_preconditions({}).allow("1")
    refused = refusal(lambda: parse_preconditions({"if-none-match": "1"}))
    assert refused.issues[0].expression == "If-None-Match"


def test_a_version_is_a_weak_entity_tag_and_back() -> None:
    assert format_etag("7") == 'W/"7"'
    wanted = parse_if_match(format_etag("7"))
    assert wanted == IfMatch(frozenset({"7"}))
    assert wanted.matches("7")
    assert not wanted.matches("8")


def test_if_match_takes_a_star_several_tags_and_strong_ones() -> None:
    assert parse_if_match(None) is None
    star = parse_if_match(" * ")
    assert star is not None
    assert star.matches("anything")
    assert parse_if_match('W/"1", "2"') == IfMatch(frozenset({"1", "2"}))


@pytest.mark.parametrize("header", ["", "1", 'W/1, "2"', '"1', "W/"])
def test_an_if_match_of_another_form_is_refused(header: str) -> None:
    refused = refusal(lambda: parse_if_match(header))
    assert (refused.status, refused.issues[0].expression) == (400, "If-Match")
