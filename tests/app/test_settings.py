"""Settings: read in one place, listed in one file, every gap told in one message."""

from __future__ import annotations

import re

import pytest

from integration.app.settings import (
    AuditSettings,
    InboxSettings,
    find_renamed_settings,
    get_edits_schedule,
    get_edits_schedule_text,
    get_events_queue_binding,
    get_housekeeping_schedule,
    get_telemetry_destination,
    read_dataverse_settings,
    read_delivery_settings,
    read_mirror_settings,
    read_settings,
)
from integration.core.errors import Misconfigured
from tests.app.settings_parts import OF_THE_HOST, REQUIRED, SAMPLE, VALUES, Recording

WRONG = [
    ("FHIR_URL", "fhir.example.org", "an address that starts with https://"),
    ("DATAVERSE_URL", "ftp://org.example.org", "an address that starts with https://"),
    ("MAX_DELIVERY_BYTES", "50 MB", "a whole number above 0"),
    ("UNIT_MAX_ENTRIES", "0", "a whole number above 0"),
    ("UNIT_MAX_BYTES", "-1", "a whole number above 0"),
    ("FHIR_CONCURRENCY", "1.5", "a whole number above 0"),
    ("DATAVERSE_CONCURRENCY", "\u0661", "a whole number above 0"),
    ("UPSTREAM_TIMEOUT", "soon", "a whole number above 0"),
    ("MAX_AGE", "3d", "a whole number above 0"),
    ("RETENTION_DAYS", "3651", "a whole number from 1 to 3650"),
    ("ACTIVITY_DAYS", "-1", "a whole number from 0 to 3650"),
    ("AUDIT_DAYS", "-1", "a whole number from 0 to 3650"),
    ("AUDIT_FAILURES", "ignore", "one of refuse, answer"),
    ("AUDIT_USER_HEADER", "Authorization", "a header with a name, not with a secret"),
    ("AUDIT_USER_HEADER", "X-Functions-Key", "a header with a name, not with a secret"),
    ("MAX_BYTES_IN_FLIGHT", "150 MB", "a whole number above 0"),
    ("VALIDATE", "yes", "one of off, on"),
    ("OVER_LIMIT", "Split", "one of split, reject"),
    ("MESSAGES", "bundle", "one of resources, refuse"),
    ("DOCUMENTS", "refuse", "one of bundle, resources, both"),
    ("FETCH_PAGES", "all", "a whole number above 0"),
    (
        "FETCH_SCOPE",
        "https://a.example/.default",
        "none, or one for each address of FETCH_FROM, by commas",
    ),
    ("FHIR_FORMER_URLS", "old.example", "addresses that start with https://, by commas"),
    ("FHIR_OTHER_URLS", "https://a.example,b", "addresses that start with https://, by commas"),
    ("INBOX", "In box", "the name of a container of its own: a-z, 0-9 and -"),
    ("INBOX", "results", "the name of a container of its own: a-z, 0-9 and -"),
    ("INBOX", "deliveries", "the name of a container of its own: a-z, 0-9 and -"),
    ("INBOX_URL", "account", "an address that starts with https://"),
    ("DANGLING", "keep", "one of refuse, note"),
    ("MIRROR_TO", "fhir", "one of web-api, healthcare-api, off"),
    ("FEED_PAGE", "1001", "a whole number from 1 to 1000"),
    ("FEED_MAX_SCANNED", "0", "a whole number from 1 to 50000"),
    ("FEED_TIMEOUT", "25 s", "a whole number from 1 to 110"),
]


def problem(**changes: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        read_settings({**REQUIRED, **changes})
    return str(caught.value)


def test_every_setting_that_is_read_is_in_the_sample_and_nothing_else_is() -> None:
    env = Recording(REQUIRED)
    read_settings(env)
    get_telemetry_destination(env)
    get_housekeeping_schedule(env)
    get_edits_schedule_text(env)
    get_events_queue_binding(env)
    read = {
        name for name in env.asked if not name.startswith(("AzureWebJobsStorage__", "WEBSITE_"))
    }
    assert read == set(VALUES) - OF_THE_HOST


def test_every_setting_that_the_changelog_calls_renamed_is_known_by_its_old_name() -> None:
    text = (SAMPLE.parent / "CHANGELOG.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| setting \| `(\w+)` \| `(\w+)` \|$", text, re.MULTILINE))
    assert len(listed) >= 3
    assert set(listed.values()) <= VALUES.keys()
    assert find_renamed_settings(dict.fromkeys(listed, "x")) == listed
    assert find_renamed_settings({**VALUES, "ORDER": " "}) == {}


def test_the_sample_states_the_defaults() -> None:
    required = {*REQUIRED, "FHIR_SCOPE", "DATAVERSE_SCOPE"}
    assert read_settings(VALUES) == read_settings({name: VALUES[name] for name in required})


def test_every_gap_is_told_in_one_message() -> None:
    with pytest.raises(Misconfigured) as caught:
        read_settings({"MAX_AGE": "x", "OVER_LIMIT": "y", "FHIR_URL": "z"})
    text = str(caught.value)
    for name in ("AzureWebJobsStorage", "DATAVERSE_URL", "MAX_AGE", "OVER_LIMIT", "FHIR_URL"):
        assert name in text
    assert "local.settings.sample.json" in text


def test_a_gap_says_set_and_a_mistake_says_correct() -> None:
    with pytest.raises(Misconfigured, match=r"^set DATAVERSE_URL; correct MAX_AGE"):
        read_settings({**REQUIRED, "DATAVERSE_URL": " ", "MAX_AGE": "x"})


@pytest.mark.parametrize(("name", "value", "wanted"), WRONG)
def test_a_wrong_value_is_named_with_what_is_wanted(name: str, value: str, wanted: str) -> None:
    assert f"{name} ({wanted})" in problem(**{name: value})


@pytest.mark.parametrize(("name", "value", "_"), WRONG)
def test_a_wrong_value_is_not_repeated(name: str, value: str, _: str) -> None:
    assert f"{name}={value}" not in problem(**{name: value})


@pytest.mark.parametrize("name", ["AZURE_CLIENT_ID", "SENDER_HEADER"])
def test_an_empty_setting_is_an_absent_one(name: str) -> None:
    assert read_settings({**REQUIRED, name: "  "}) == read_settings(REQUIRED)


def test_addresses_lose_their_last_slash() -> None:
    assert read_settings(REQUIRED).fhir.url == "https://fhir.example.org/r4"


def test_a_scope_follows_from_the_address() -> None:
    read = read_settings(REQUIRED)
    assert read.fhir.scope == "https://fhir.example.org/r4/.default"
    assert read.dataverse.scope == "https://org.example.org/.default"


@pytest.mark.parametrize("none", ["none", "None", " NONE "])
def test_a_scope_of_none_sends_no_token(none: str) -> None:
    read = read_settings({**REQUIRED, "FHIR_SCOPE": none})
    assert read.fhir.scope is None
    assert read.dataverse.scope is not None


def test_a_scope_can_be_stated() -> None:
    stated = "https://other.example.org/.default"
    assert read_settings({**REQUIRED, "FHIR_SCOPE": stated}).fhir.scope == stated


def without_connection(**values: str) -> dict[str, str]:
    kept = {name: value for name, value in REQUIRED.items() if name != "AzureWebJobsStorage"}
    return {**kept, **{f"AzureWebJobsStorage__{name}": value for name, value in values.items()}}


def test_storage_can_be_an_account_and_an_identity() -> None:
    storage = read_settings(without_connection(accountName="clinic")).storage
    assert storage.connection is None
    assert storage.blob_url == "https://clinic.blob.core.windows.net"
    assert storage.queue_url == "https://clinic.queue.core.windows.net"
    assert storage.table_url == "https://clinic.table.core.windows.net"


def test_storage_can_be_three_addresses() -> None:
    services = {f"{name}ServiceUri": f"https://{name}.example.org" for name in ("blob", "queue")}
    env = without_connection(**services, tableServiceUri="https://table.example.org")
    assert read_settings(env).storage.table_url == "https://table.example.org"


def test_an_address_of_storage_goes_before_the_account() -> None:
    env = without_connection(accountName="clinic", blobServiceUri="https://blob.example.org")
    storage = read_settings(env).storage
    assert storage.blob_url == "https://blob.example.org"
    assert storage.queue_url == "https://clinic.queue.core.windows.net"


def test_two_addresses_of_three_are_not_enough() -> None:
    env = without_connection(
        blobServiceUri="https://b.example", queueServiceUri="https://q.example"
    )
    with pytest.raises(Misconfigured, match=r"set AzureWebJobsStorage \(or "):
        read_settings(env)


def test_telemetry_has_a_destination_only_when_one_is_set() -> None:
    name = "APPLICATIONINSIGHTS_CONNECTION_STRING"
    assert get_telemetry_destination({}) is None
    assert get_telemetry_destination({name: ""}) is None
    assert get_telemetry_destination({name: "InstrumentationKey=0"}) == "InstrumentationKey=0"


def test_a_delivery_can_be_read_without_any_upstream() -> None:
    assert read_delivery_settings({}) == read_settings(REQUIRED).deliveries
    changed = {"MESSAGES": "refuse", "UNIT_MAX_ENTRIES": "7"}
    assert read_delivery_settings(changed) == read_settings({**REQUIRED, **changed}).deliveries
    with pytest.raises(Misconfigured, match=r"^correct DOCUMENTS"):
        read_delivery_settings({"DOCUMENTS": "burn"})


def test_the_maps_in_use_can_be_read_without_any_upstream() -> None:
    assert read_mirror_settings({}) == read_settings(REQUIRED).mirror
    with pytest.raises(Misconfigured, match=r"^correct MAP_SET"):
        read_mirror_settings({"MAP_SET": "tidy"})


def test_own_maps_are_in_a_folder_beside_the_endpoints() -> None:
    assert read_mirror_settings({"MAPS": "our-maps"}).maps_folder == SAMPLE.parent / "our-maps"


def test_dataverse_can_be_reached_without_anything_else() -> None:
    stated = {"DATAVERSE_URL": "https://org.example.org", "AZURE_CLIENT_ID": "an-id"}
    read, whole = read_dataverse_settings(stated), read_settings({**REQUIRED, **stated})
    assert (read.dataverse, read.client_id) == (whole.dataverse, whole.client_id)
    with pytest.raises(Misconfigured, match=r"^set DATAVERSE_URL \("):
        read_dataverse_settings({})


@pytest.mark.parametrize(
    ("named", "client"),
    [
        ({}, None),
        ({"AzureWebJobsStorage__clientId": "storage"}, "storage"),
        ({"AzureWebJobsStorage__clientId": "storage", "AZURE_CLIENT_ID": "own"}, "own"),
    ],
)
def test_the_identity_is_that_of_storage_unless_another_is_named(
    named: dict[str, str], client: str | None
) -> None:
    assert read_settings({**REQUIRED, **named}).client_id == client
    assert read_dataverse_settings({**REQUIRED, **named}).client_id == client


def test_a_mistake_in_what_several_upstreams_share_is_told_once() -> None:
    assert problem(UPSTREAM_TIMEOUT="soon").count("UPSTREAM_TIMEOUT") == 1


def test_a_timer_names_its_setting_only_where_it_is_set() -> None:
    """The host does not start a timer whose setting is missing."""
    assert get_housekeeping_schedule({"HOUSEKEEPING_SCHEDULE": "0 0 * * * *"}) == (
        "%HOUSEKEEPING_SCHEDULE%"
    )
    for unset in ({}, {"HOUSEKEEPING_SCHEDULE": " "}):
        assert get_housekeeping_schedule(unset) == VALUES["HOUSEKEEPING_SCHEDULE"]


def test_the_queue_of_events_is_named_where_the_host_can_find_it() -> None:
    assert get_events_queue_binding({"FHIR_EVENTS_QUEUE": "changes"}) == "%FHIR_EVENTS_QUEUE%"
    for unset in ({}, {"FHIR_EVENTS_QUEUE": " "}):
        assert get_events_queue_binding(unset) == VALUES["FHIR_EVENTS_QUEUE"]


def sources(addresses: str, scope: str = "") -> dict[str, str | None]:
    return dict(
        read_settings({**REQUIRED, "FETCH_FROM": addresses, "FETCH_SCOPE": scope}).fetch_from
    )


def test_nothing_is_fetched_unless_an_address_is_named() -> None:
    assert read_settings(REQUIRED).fetch_from == {}


@pytest.mark.parametrize("scope", ["", "none", "None"])
def test_addresses_to_fetch_from_get_no_token_unless_a_scope_is_stated(scope: str) -> None:
    named = " https://a.example/fhir/ , http://127.0.0.1:8081/fhir,"
    known = {"https://a.example/fhir": None, "http://127.0.0.1:8081/fhir": None}
    assert sources(named, scope) == known


def test_each_address_gets_its_own_scope_and_no_other() -> None:
    named = "https://a.example,https://b.example:8443/r4"
    known = {"https://a.example": None, "https://b.example:8443/r4": "api://b/.default"}
    assert sources(named, "none, api://b/.default") == known


@pytest.mark.parametrize(
    "address",
    [
        "http://a.example",
        "a.example",
        "https://",
        "https://user@a.example",
        "https://a.example?x=y",
        "https://a.example#x",
        "https://a.example/../b",
        "https://a.example/%2e%2e",
        "http://127.0.0.1.example",
        "http://localhost@a.example",
        "https://a.example/fhir, ftp://b.example",
        "https://*.example",
    ],
)
def test_an_address_to_fetch_from_is_plain_and_safe(address: str) -> None:
    assert "FETCH_FROM (addresses that start with https://" in problem(FETCH_FROM=address)


def test_the_healthcare_apis_fill_the_columns_of_one_set_of_maps_alone() -> None:
    assert (
        read_settings({**REQUIRED, "MIRROR_TO": "healthcare-api"}).mirror.target == "healthcare-api"
    )
    wrong = problem(MIRROR_TO="healthcare-api", MAP_SET="plain")
    assert "MAP_SET (healthcare, where MIRROR_TO is healthcare-api)" in wrong


def test_activity_is_noted_unless_it_is_kept_for_no_day() -> None:
    assert read_settings({**REQUIRED, "ACTIVITY_DAYS": "0"}).activity_days == 0


def test_reads_are_recorded_for_a_year_unless_a_setting_says_otherwise() -> None:
    assert read_settings(REQUIRED).audit == AuditSettings(365, None, is_required=True)
    named = {"AUDIT_DAYS": "0", "AUDIT_USER_HEADER": "X-User", "AUDIT_FAILURES": "answer"}
    assert read_settings({**REQUIRED, **named}).audit == AuditSettings(
        0, "X-User", is_required=False
    )


def test_external_events_need_the_names_of_virtual_tables() -> None:
    wanted = {**REQUIRED, "EXTERNAL_EVENTS": "Observation, Condition"}
    with pytest.raises(Misconfigured, match="MAP_PREFIX"):
        read_settings(wanted)
    assert read_settings({**wanted, "MAP_PREFIX": "abc"}).feed.event_types == (
        "Observation",
        "Condition",
    )


def test_an_inbox_has_a_container_and_may_have_an_account_of_its_own() -> None:
    assert read_settings(REQUIRED).inbox == InboxSettings()
    url = "https://files.blob.core.windows.net"
    settings = read_settings({**REQUIRED, "INBOX": "inbox-1", "INBOX_URL": f"{url}/"})
    assert settings.inbox == InboxSettings("inbox-1", url)


def test_edits_are_looked_for_only_where_they_are_to_be_written() -> None:
    for unset in ({}, {"WRITEBACK": ""}, {"WRITEBACK": "off", "WRITEBACK_SCHEDULE": "0 * * * * *"}):
        assert get_edits_schedule(unset) is None
    assert get_edits_schedule({"WRITEBACK": "poll"}) == VALUES["WRITEBACK_SCHEDULE"]
    own = {"WRITEBACK": "bell", "WRITEBACK_SCHEDULE": "0 * * * * *"}
    assert get_edits_schedule(own) == "%WRITEBACK_SCHEDULE%"


@pytest.mark.parametrize("target", ["healthcare-api", "off"])
def test_edits_can_be_written_only_where_the_app_has_the_maps(target: str) -> None:
    assert "WRITEBACK" in problem(WRITEBACK="poll", MIRROR_TO=target)
