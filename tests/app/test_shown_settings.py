"""Which settings operators are shown: every one by its name, no secret, and nothing that looks odd."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from integration.app.settings import read_settings
from integration.app.shown_settings import Shape, list_settings, show_value
from integration.pages.parts import ShownSetting
from tests.app.settings_parts import REQUIRED, VALUES

SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def shown(**env: str) -> dict[str, ShownSetting]:
    values = {**REQUIRED, **env}
    return {item.name: item for item in list_settings(read_settings(values), values)}


def test_every_setting_is_listed_once() -> None:
    values = {**VALUES}
    names = [item.name for item in list_settings(read_settings(values), values)]
    assert len(names) == len(set(names))
    by_identity = {name for name in names if name.startswith("AzureWebJobsStorage__")}
    assert set(names) - by_identity == set(VALUES)
    assert len(by_identity) == 5


def test_every_setting_that_the_docs_explain_is_listed() -> None:
    table = OPERATIONS.read_text("utf-8").partition("\n## ")[0]
    named = set()
    for line in table.splitlines():
        if line.startswith("| `"):
            named |= set(re.findall(r"`([A-Z][A-Za-z_]+)`", line.split("|")[1]))
    assert len(named) > 40
    assert named - shown().keys() == set()


def test_a_default_is_shown_as_such() -> None:
    found = shown(MAX_AGE="60")
    assert (found["MAX_AGE"].value, found["MAX_AGE"].is_set) == ("60", True)
    assert (found["FEED_PAGE"].value, found["FEED_PAGE"].is_set) == ("250", False)
    assert found["FHIR_SCOPE"].value == "https://fhir.example.org/r4/.default"
    assert (found["INBOX"].value, found["INBOX"].is_secret) == (None, False)
    assert found["PAGES_SIGN_IN"].value == "required"
    assert found["HOUSEKEEPING_SCHEDULE"].value == "0 */10 * * * *"


def test_the_values_are_those_of_the_sample() -> None:
    """So each is read from its own place."""
    found = {item.name: item for item in list_settings(read_settings(VALUES), VALUES)}
    for name, value in VALUES.items():
        if value and name != "AzureWebJobsStorage":
            assert found[name].value == value, name


CHOSEN = {
    **{"WRITE_ORDER": "arrival, bulk=off", "MAPS_ENABLED": "practitioner, us_core"},
    **{"FETCH_FROM": "https://a.example/fhir", "FETCH_SCOPE": "none", "VALIDATE": "on"},
    **{"BYPASS_LOGIC": "CustomSync,CustomAsync", "DETECT_DUPLICATES": "on", "INBOX": "inbox"},
    **{"AUDIT_FAILURES": "answer", "AUDIT_USER_HEADER": "x-user", "MAP_PREFIX": "new"},
    **{"IMPERSONATE": "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e5f", "EXTERNAL_EVENTS": "Goal, Task"},
    **{"FHIR_FORMER_URLS": "https://old.example/fhir", "SENDER_HEADER": "x-sender"},
}


@pytest.mark.parametrize(("name", "value"), CHOSEN.items())
def test_a_chosen_value_is_shown(name: str, value: str) -> None:
    item = shown(**CHOSEN)[name]
    assert (item.value, item.is_set, item.is_secret) == (value, True, False)


def test_no_secret_is_shown() -> None:
    key = f"AccountName=a;AccountKey={SECRET};EndpointSuffix=core.windows.net"
    found = shown(
        AzureWebJobsStorage=key,
        APPLICATIONINSIGHTS_CONNECTION_STRING=f"InstrumentationKey={SECRET}",
        LAB_KEY=SECRET,
        FEED_KEY=SECRET,
    )
    assert SECRET not in repr(found)
    assert found["AzureWebJobsStorage"] == ShownSetting(
        group="Storage and upstreams",
        name="AzureWebJobsStorage",
        value=None,
        is_set=True,
        is_secret=True,
    )
    assert "LAB_KEY" not in found
    assert "FEED_KEY" not in found


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    wrong = {
        "FHIR_URL": f"https://user:{SECRET[:20]}@fhir.example.org/r4?code={SECRET}#{SECRET}",
        "FHIR_SCOPE": SECRET,
        "SENDER_HEADER": SECRET,
        "AUDIT_USER_HEADER": SECRET,
        "IMPERSONATE": SECRET,
        "AZURE_CLIENT_ID": SECRET,
        "MAP_PREFIX": SECRET,
        "BYPASS_LOGIC": SECRET,
        "SENDERS": f"folder/{SECRET}/senders.toml",
        "HOUSEKEEPING_SCHEDULE": SECRET,
        "FHIR_EVENTS_QUEUE": SECRET,
    }
    values = {**REQUIRED, **wrong}
    found = {item.name: item for item in list_settings(read_settings(values), values)}
    assert SECRET[:20] not in repr(found)
    assert found["FHIR_URL"].value == "https://fhir.example.org/r4"
    for name in ("SENDER_HEADER", "IMPERSONATE", "HOUSEKEEPING_SCHEDULE", "FHIR_SCOPE"):
        assert (found[name].value, found[name].is_secret) == (None, True), name


@pytest.mark.parametrize("shape", list(Shape))
def test_no_shape_shows_a_connection_string(shape: Shape) -> None:
    for text in (f"AccountKey={SECRET}", f"Endpoint=sb://a;SharedAccessKey={SECRET}", SECRET):
        assert show_value(shape, text) is None
