"""The query of a request, as it was sent: nothing of it is lost, guessed or ignored."""

from __future__ import annotations

import pytest

from integration.app.raw_query import parse_query, split_condition
from integration.core.errors import Issue, Rejected

KNOWN = ("sender", "dry-run")


def find_issue(query: str, known: tuple[str, ...] = KNOWN) -> Issue:
    with pytest.raises(Rejected) as caught:
        parse_query(f"http://host/api/fhir?{query}", known)
    assert caught.value.status == 400
    (issue,) = caught.value.issues
    return issue


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("http://host/api/fhir", {}),
        ("http://host/api/fhir?", {}),
        ("http://host/api/fhir?&&", {}),
        ("http://host/api/fhir?sender=a%26b+c", {"sender": "a&b c"}),
        ("http://host/api/fhir?sender=a=b&dry-run=true", {"sender": "a=b", "dry-run": "true"}),
        ("http://host/api/fhir?code=a&code=b&sender=x", {"sender": "x"}),
    ],
)
def test_parameters_are_read_as_they_were_sent(url: str, query: dict[str, str]) -> None:
    assert parse_query(url, KNOWN) == query


@pytest.mark.parametrize("query", ["sender", "sender=", "sender=+", "sender=%20"])
def test_a_parameter_without_a_value_is_named(query: str) -> None:
    issue = find_issue(query)
    assert (issue.expression, issue.text) == ("sender", "the parameter sender has no value")


def test_an_unknown_parameter_is_named_with_those_that_exist() -> None:
    assert find_issue("dryrun=true").text == (
        "the parameter dryrun is not known: this address takes sender, dry-run"
    )
    assert find_issue("a=1", ()).text == "the parameter a is not known: this address takes none"


def test_what_stands_where_a_name_belongs_is_not_repeated() -> None:
    for query in ("Anna%20Berg=", "1970-01-01", "=x", f"{'a' * 40}=1"):
        issue = find_issue(query)
        assert issue.text.startswith("one of the parameters is not known")
        assert issue.expression is None


def test_a_parameter_that_is_given_twice_is_refused() -> None:
    assert find_issue("sender=a&sender=b").text == "the parameter sender is given twice"


@pytest.mark.parametrize("name", ["hardDelete", "_hardDelete", "_purge", "_meta-history"])
def test_a_parameter_of_microsofts_server_is_refused_with_a_reason(name: str) -> None:
    issue = find_issue(f"{name}=true")
    assert issue.expression == name
    assert "at the FHIR server itself" in issue.text


CONDITION = "http://host/api/fhir/Observation?subject=Patient/1"


def test_the_function_key_is_taken_out_of_a_condition() -> None:
    _, condition = split_condition(f"{CONDITION}&code=key", KNOWN, is_key_in_query=True)
    assert condition == "subject=Patient/1"
    _, condition = split_condition(f"{CONDITION}&code=key", KNOWN, is_key_in_query=False)
    assert condition == "subject=Patient/1&code=key"


@pytest.mark.parametrize("second", ["code=loinc|1", "%63ode=loinc|1"])
def test_a_criterion_is_not_taken_for_a_second_function_key(second: str) -> None:
    """Without it the condition would find more than was meant."""
    with pytest.raises(Rejected, match="x-functions-key"):
        split_condition(f"{CONDITION}&code=key&{second}", KNOWN, is_key_in_query=True)
    with pytest.raises(Rejected, match="x-functions-key"):
        split_condition(f"{CONDITION}&code=loinc%7C1", KNOWN, is_key_in_query=True)


@pytest.mark.parametrize("name", ["Dry-Run", "dry_run", "dryrun", "dry%5Frun", "_dryRun"])
def test_a_parameter_of_this_app_is_not_taken_for_a_criterion(name: str) -> None:
    """A server passes over what it does not know, and would write."""
    with pytest.raises(Rejected, match="dry-run"):
        split_condition(f"{CONDITION}&{name}=true", KNOWN, is_key_in_query=False)


def test_a_search_parameter_that_is_spelt_like_one_of_fhir_s_is_a_criterion() -> None:
    given = split_condition(
        "http://host/api?format=a|1&_format=json", ["_format"], is_key_in_query=False
    )
    assert given == ({"_format": "json"}, "format=a|1")
