"""`python -m integration check` asks real services, reports each failure with its remedy, and leaves
nothing behind."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.data.tables import TableServiceClient
from azure.data.tables.aio import TableServiceClient as AsyncTableServiceClient
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)
from azure.storage.blob.aio import BlobServiceClient as AsyncBlobServiceClient
from azure.storage.queue import QueueServiceClient

from integration.check import command, connections, remedies
from integration.check.connections import Connections
from integration.cli.main import main
from integration.journal.azure_configuration import open_configuration_store
from integration.journal.configuration import DATA_ROUTES, ConfigurationVersion
from integration.mapping import files
from local.host.emulator import ACCOUNT, KEY
from local.processes import PROJECT
from local.services import Running, find_free_ports, run_services
from local.storage_setup import create_storage
from tests.provision.observation_map import OBSERVATION

FEED = "https://app.example.org/api/odata/"
FEED_KEY = "feed-key-Zaphkiel"
IDENTITY = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e77"
NAMES = ["MIRROR_TO", "ON_DELETE", "BYPASS_LOGIC", "IMPERSONATE", "FETCH_FROM", "FETCH_SCOPE"]
NAMES += [
    "INBOX",
    "INBOX_URL",
    "FHIR_EVENTS_QUEUE",
    "EXTERNAL_EVENTS",
    "MAPS_ENABLED",
    "AzureWebJobsStorage__clientId",
]
NOWHERE = "http://127.0.0.1:1"
LACKS_DATAVERSE_USER = "Dataverse answered 403"

Answer = Callable[[httpx.Request], httpx.Response | None]


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One virtual table is as good as twenty."""
    folder = tmp_path_factory.mktemp("maps")
    for path in (files.MAPS_FOLDER / files.CLINICAL_SET).glob("*.toml"):
        (folder / path.name).write_text(f"enabled = false\n{path.read_text('utf-8')}", "utf-8")
    (folder / "observation.toml").write_text(OBSERVATION, "utf-8")
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, maps: Path) -> Iterator[Running]:
    """Every upstream as a deployment leaves it: storage made, Dataverse provisioned."""
    if not (PROJECT / "local/node_modules/azurite").is_dir():
        pytest.skip("azurite is not installed: npm ci --prefix local")
    with run_services(find_free_ports(), tmp_path_factory.mktemp("check")) as found:
        asyncio.run(create_storage(found))
        with pytest.MonkeyPatch.context() as env:
            stated(env, found, maps)
            assert main(["provision"]) == 0
        yield found


def stated(env: pytest.MonkeyPatch, running: Running, maps: Path) -> None:
    for name in NAMES:
        env.delenv(name, raising=False)
    more = {
        "MAP_SET": "healthcare",
        "MAP_PREFIX": "abc",
        "MAPS": str(maps),
        "FEED_URL": FEED,
        "FEED_KEY": FEED_KEY,
        "AZURE_CLIENT_ID": IDENTITY,
    }
    for name, value in {**running.settings(), **more}.items():
        env.setenv(name, value)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch, running: Running, maps: Path) -> pytest.MonkeyPatch:
    stated(monkeypatch, running, maps)
    return monkeypatch


def feed(request: httpx.Request) -> httpx.Response:
    """The endpoint as the host guards it."""
    if request.headers.get("x-functions-key") != FEED_KEY:
        return httpx.Response(401)
    assert request.url.path == "/api/odata/$metadata"
    return httpx.Response(200, content=b'<?xml version="1.0"?><edmx:Edmx Version="4.0"/>')


class Between(httpx.AsyncHTTPTransport):
    """Answers what it is told to, and lets all else pass."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self._answer(request) or await super().handle_async_request(request)


def refused(method: str, part: str, status: int = 403) -> Answer:
    return lambda request: (
        httpx.Response(status) if request.method == method and part in request.url.path else None
    )


def plugged(upstream: Any, answer: Answer) -> Any:
    return replace(upstream, http=httpx.AsyncClient(transport=Between(answer)))


class Told(dict[str, tuple[str, str]]):
    """State and the rest of its line, by the name of the check."""

    status: int
    text: str

    @property
    def failed(self) -> list[str]:
        return [name for name, (state, _) in self.items() if state == "failed"]


def check(*changes: Callable[[Connections], Connections], feed: Answer = feed) -> Told:
    """What the command says, with an upstream of the settings changed on the way."""

    @asynccontextmanager
    async def opened(skew: float) -> AsyncIterator[Connections]:
        async with connections.open_connections(skew) as ends:
            if ends.feed is not None:
                ends = replace(ends, feed=plugged(ends.feed, feed))
            for change in changes:
                ends = change(ends)
            yield ends
            for upstream in (ends.fhir.upstream, ends.dataverse.upstream, ends.feed):
                if upstream is not None:
                    await upstream.http.aclose()

    parser = argparse.ArgumentParser()
    command.add_options(parser)
    said: list[str] = []
    told = Told()
    told.status = command.run(parser.parse_args([]), said.append, opened)
    told.text = "\n".join(said)
    for line in said[:-1]:
        name, state, *rest = line.split("  ", 1)[0], *line.split("  ", 1)[1].split(maxsplit=1)
        told[name] = (state, *rest)
    return told


def of_fhir(answer: Answer) -> Callable[[Connections], Connections]:
    return lambda ends: replace(
        ends, fhir=replace(ends.fhir, upstream=plugged(ends.fhir.upstream, answer))
    )


def of_dataverse(answer: Answer) -> Callable[[Connections], Connections]:
    return lambda ends: replace(
        ends, dataverse=replace(ends.dataverse, upstream=plugged(ends.dataverse.upstream, answer))
    )


def mend(told: Told, name: str) -> str:
    state, rest = told[name]
    assert state == "failed", (name, rest)
    return rest.partition(" => ")[2]


def kept(running: Running) -> tuple[list[str], int, list[str]]:
    """Blobs, messages and rows that storage has."""
    with BlobServiceClient.from_connection_string(running.storage) as blobs:
        found = [each.name for each in blobs.get_container_client("deliveries").list_blobs()]
    with QueueServiceClient.from_connection_string(running.storage) as queues:
        named = [queues.get_queue_client(each.name) for each in queues.list_queues()]
        messages = sum(each.get_queue_properties().approximate_message_count or 0 for each in named)
    with TableServiceClient.from_connection_string(running.storage) as tables:
        of = [tables.get_table_client(each.name) for each in tables.list_tables()]
        rows = [str(row) for each in of for row in each.list_entities()]
    return found, messages, rows


# --- all is well -------------------------------------------------------------------------------


def test_a_deployment_that_is_whole_is_told_so(env: pytest.MonkeyPatch) -> None:
    env.setenv("EXTERNAL_EVENTS", "Observation")
    told = check()
    assert (told.status, told.failed) == (0, [])
    for name in (
        *("container deliveries", "queue relay", "queue fhir-events-poison", "table configuration"),
        *("clock of storage", "FHIR metadata", "FHIR read", "FHIR write", "clock of FHIR"),
        *("maps", "data routes", "Dataverse user", "clock of Dataverse", "Dataverse privileges"),
        *("columns for Patient", "virtual tables", "data source", "external events", "feed"),
    ):
        assert told[name][0] == "ok", told[name]
    assert told["data routes"][1] == "mirrored: Patient; virtual: 1; chosen: 0"


def test_an_inbox_is_only_looked_into_and_its_answers_are_tried(
    env: pytest.MonkeyPatch, running: Running
) -> None:
    assert "container results" not in check()
    env.setenv("INBOX", "checked-inbox")
    told = check()
    assert told.failed == ["container checked-inbox", "container results"]
    with BlobServiceClient.from_connection_string(running.storage) as blobs:
        made = [blobs.create_container(name) for name in ("checked-inbox", "results")]
        told = check()
        assert told["container checked-inbox"] == ("ok", "listed")
        assert told["container results"] == ("ok", "written, read, deleted")
        for container in made:
            container.delete_container()


def test_a_setting_that_still_has_an_older_name_is_a_warning_with_the_new_one(
    env: pytest.MonkeyPatch,
) -> None:
    assert check()["names of settings"][0] == "ok"
    env.setenv("ORDER", "off")
    env.setenv("FEED_BREADTH", "9")
    told = check()
    state, text = told["names of settings"]
    assert (told.status, state) == (0, "warning")
    assert "ORDER is now WRITE_ORDER" in text
    assert "FEED_BREADTH is now FEED_MAX_SCANNED" in text
    assert told["senders"][0] == "warning"  # there is no senders.toml
    assert " warning=2 " in told.text.splitlines()[-1]


def test_the_command_says_the_same_of_the_services_that_it_finds_by_its_settings(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.delenv("FEED_URL")
    assert main(["check"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("check: ok=")
    assert " failed=0 " in said[-1]


@pytest.mark.usefixtures("env")
def test_nothing_stays_behind_and_no_secret_is_told(running: Running) -> None:
    told = check()
    assert kept(running) == ([], 0, [])
    found = httpx.get(f"{running.fhir_url}/Basic?_summary=count").json()
    assert found["total"] == 0
    writes = httpx.get(f"{running.dataverse_url}/control/writes").json()
    assert not [each for each in writes if "check" in str(each)]
    assert KEY not in told.text
    assert FEED_KEY not in told.text


def test_settings_that_are_missing_are_named_and_nobody_is_asked(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.delenv("FHIR_URL")
    env.setenv("MAX_AGE", "soon")
    assert main(["check"]) == 2
    (said,) = capsys.readouterr().out.splitlines()
    assert "FHIR_URL" in said
    assert "MAX_AGE" in said


def test_a_map_set_that_is_wrong_ends_the_check(env: pytest.MonkeyPatch) -> None:
    env.setenv("MAPS_ENABLED", "nobody")
    assert check().status == 2


# --- storage -----------------------------------------------------------------------------------


def test_storage_that_is_nowhere_fails_by_itself(env: pytest.MonkeyPatch) -> None:
    points = "".join(f"{name}Endpoint={NOWHERE}/x;" for name in ("Blob", "Queue", "Table"))
    env.setenv("AzureWebJobsStorage", f"AccountName=x;AccountKey={KEY};{points}")
    told = check()
    assert told.status == 1
    assert {mend(told, name) for name in told.failed} == {remedies.STORAGE_UNREACHABLE}
    assert told["clock of storage"][0] == "skipped"
    assert told["data routes"][0] == "skipped"
    assert told["Dataverse user"][0] == "ok"


def test_an_identity_that_may_only_read_is_told_each_role_that_it_lacks(
    env: pytest.MonkeyPatch, running: Running
) -> None:
    sas = generate_account_sas(
        ACCOUNT,
        KEY,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, list=True, process=False),
        datetime.now(UTC) + timedelta(hours=1),
        services="bqt",
    )
    ports = {"Blob": running.ports.blob, "Queue": running.ports.queue, "Table": running.ports.table}
    points = "".join(f"{n}Endpoint=http://127.0.0.1:{p}/{ACCOUNT};" for n, p in ports.items())
    env.setenv("AzureWebJobsStorage", f"{points}SharedAccessSignature={sas}")
    told = check()
    for name, role in (
        ("container deliveries", "Storage Blob Data Owner"),
        ("queue relay", "Storage Queue Data Contributor"),
        ("table deliveries", "Storage Table Data Contributor"),
    ):
        assert f'--role "{role}" --assignee {IDENTITY}' in mend(told, name)
    # Poison queues are only looked into.
    assert told["queue relay-poison"][0] == "ok"


def test_a_queue_that_is_not_there_is_named_with_the_command_that_makes_it(
    env: pytest.MonkeyPatch,
) -> None:
    env.setenv("FHIR_EVENTS_QUEUE", "other-events")
    told = check()
    assert told.failed == ["queue other-events", "queue other-events-poison"]
    assert mend(told, "queue other-events").startswith("az storage queue create ")
    assert "--name other-events" in mend(told, "queue other-events")


async def publish(running: Running, documents: dict[str, str]) -> None:
    async with (
        AsyncTableServiceClient.from_connection_string(running.storage) as tables,
        AsyncBlobServiceClient.from_connection_string(running.storage) as blobs,
    ):
        store = await open_configuration_store(blobs, tables)
        number = (await store.read_latest()).number + 1
        digests = {name: await store.add_document(text) for name, text in documents.items()}
        assert await store.add_version(ConfigurationVersion(number=number, documents=digests))


def test_a_route_that_was_chosen_for_what_has_no_map_is_told(
    env: pytest.MonkeyPatch, running: Running
) -> None:
    asyncio.run(publish(running, {DATA_ROUTES: '[Group]\nroute = "virtual"\n'}))
    told = check()
    asyncio.run(publish(running, {}))
    assert told.failed == ["data routes"]
    assert "Group" in told["data routes"][1]


# --- FHIR --------------------------------------------------------------------------------------


def test_a_fhir_server_that_is_nowhere_fails_by_itself(env: pytest.MonkeyPatch) -> None:
    env.setenv("FHIR_URL", NOWHERE)
    told = check()
    assert told.failed == ["FHIR metadata", "FHIR read", "FHIR write"]
    assert mend(told, "FHIR read") == remedies.FHIR_UNREACHABLE


def test_an_address_that_is_another_service_s_is_told(
    env: pytest.MonkeyPatch, running: Running
) -> None:
    env.setenv("FHIR_URL", running.dataverse_url)
    told = check()
    assert "without a CapabilityStatement" in told["FHIR metadata"][1]


@pytest.mark.usefixtures("env")
def test_an_identity_that_may_not_write_is_told_its_role() -> None:
    told = check(of_fhir(refused("PUT", "/Basic/")))
    assert told.failed == ["FHIR write"]
    assert mend(told, "FHIR write") == remedies.suggest_fhir_role(IDENTITY)
    assert IDENTITY in mend(told, "FHIR write")


@pytest.mark.usefixtures("env")
def test_metadata_that_is_open_to_all_proves_no_role() -> None:
    told = check(of_fhir(refused("GET", "/Patient/")))
    assert told.failed == ["FHIR read"]
    assert told["FHIR metadata"][0] == "ok"


@pytest.mark.usefixtures("env")
def test_a_server_that_ignores_conditions_is_told_and_cleaned_up(running: Running) -> None:
    def deaf(request: httpx.Request) -> None:
        request.headers.pop("if-match", None)

    told = check(of_fhir(deaf))
    assert told.failed == ["FHIR write"]
    assert "If-Match is ignored" in told["FHIR write"][1]
    assert httpx.get(f"{running.fhir_url}/Basic?_summary=count").json()["total"] == 0


def test_a_sender_s_server_that_is_away_is_told(env: pytest.MonkeyPatch, running: Running) -> None:
    env.setenv("FETCH_FROM", f"{running.fhir_url},{NOWHERE}")
    told = check()
    assert told.failed == [f"source {NOWHERE}"]
    assert told[f"source {running.fhir_url}"][0] == "ok"


# --- Dataverse ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("env")
def test_an_identity_that_is_no_user_there_is_told_what_makes_it_one() -> None:
    told = check(of_dataverse(refused("GET", "")))
    assert "Dataverse user" in told.failed
    assert mend(told, "Dataverse user") == remedies.PROVISION
    assert LACKS_DATAVERSE_USER in told["Dataverse user"][1]
    assert told["FHIR write"][0] == "ok"


def test_a_privilege_that_a_setting_wants_and_nobody_gave_is_named(
    env: pytest.MonkeyPatch,
) -> None:
    held: list[dict[str, str]] = []

    def without_bypass(request: httpx.Request) -> httpx.Response | None:
        if "RetrieveUserPrivileges" not in request.url.path:
            return None
        held.extend(httpx.get(str(request.url)).json()["RolePrivileges"])
        few = [one for one in held if one["PrivilegeName"] != "prvBypassCustomBusinessLogic"]
        return httpx.Response(200, json={"RolePrivileges": few})

    assert check(of_dataverse(without_bypass)).failed == []
    env.setenv("BYPASS_LOGIC", "CustomSync")
    told = check(of_dataverse(without_bypass))
    assert told.failed == ["Dataverse privileges"]
    assert told["Dataverse privileges"][1].startswith("missing: prvBypassCustomBusinessLogic =>")


@pytest.mark.usefixtures("env")
@pytest.mark.parametrize(
    ("part", "name"),
    [("RetrieveUserPrivileges", "Dataverse privileges"), ("msdyn_odatav4ds", "data source")],
)
def test_what_this_identity_may_not_look_at_is_no_failure(part: str, name: str) -> None:
    """The app does without these rights."""
    told = check(of_dataverse(refused("GET", part)))
    assert (told.status, told[name][0]) == (0, "skipped")
    assert remedies.PROVISION_DRY_RUN in told[name][1]


@pytest.mark.usefixtures("env")
@pytest.mark.parametrize(
    ("rows", "state", "words"),
    [
        ([("contact", True, False)], "warning", "on for contact"),
        ([("contact", False, False), ("account", True, True)], "ok", "off"),
        (None, "ok", "the toolkit is not there"),
    ],
)
def test_a_write_back_of_the_toolkit_is_a_warning(
    rows: list[tuple[str, bool, bool]] | None, state: str, words: str
) -> None:
    """Two that write to FHIR would answer each other's changes."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if "msind_updateserviceentitymap" not in request.url.path:
            return None
        if rows is None:
            return httpx.Response(404, json={"error": {"code": "0x80040217", "message": "no"}})
        names = ("msind_entityname", "msind_writeback", "msind_disabled")
        maps = [dict(zip(names, row, strict=True)) for row in rows]
        return httpx.Response(200, json={"value": maps, "LogicalName": "x"})

    told = check(of_dataverse(answer))
    name = "write-back of the data integration toolkit"
    assert told.status == 0
    assert told[name][0] == state
    assert words in told[name][1]


@pytest.mark.parametrize(
    ("column", "tracked", "state", "words"),
    [
        ("department", 200, "ok", "edits of its rows"),
        ("department", 400, "failed", "not tracked"),
        ("address1_upszone", 200, "failed", "too short for a stamp"),
        (None, 200, "failed", "which map"),
    ],
)
def test_edits_are_written_back_only_where_they_can_be_found(
    env: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    column: str | None,
    tracked: int,
    state: str,
    words: str,
) -> None:
    env.setenv("WRITEBACK", "poll")
    if column is not None:
        text = f'adds_to = "Patient"\n\n[[attribute]]\ncolumn = "{column}"\nkind = "map"\n'
        (tmp_path / "map_digest.toml").write_text(text, "utf-8")
        env.setenv("MAPS", str(tmp_path))

    def answer(request: httpx.Request) -> httpx.Response | None:
        if "odata.track-changes" not in request.headers.get("prefer", ""):
            return None
        link = "https://x/api/data/v9.2/contacts?$deltatoken=1"
        return httpx.Response(tracked, json={"value": [], "@odata.deltaLink": link})

    told = check(of_dataverse(answer))
    assert told["changes of contact"][0] == state
    assert words in told["changes of contact"][1]


def test_columns_and_keys_that_are_lacking_are_named_with_the_line_of_the_map(
    env: pytest.MonkeyPatch,
) -> None:
    env.setenv("MAP_SET", "plain")
    told = check()
    assert told.failed == ["columns for Patient", "alternate keys of contact"]
    assert "patient.toml: contact has no column abc_fhirid" in told["columns for Patient"][1]
    assert "python -m integration provision" in mend(told, "columns for Patient")
    assert told["alternate keys of contact"][1].startswith("missing: a key of abc_fhirid")


def test_a_broken_map_is_told_and_the_rest_goes_on(
    env: pytest.MonkeyPatch, maps: Path, tmp_path: Path
) -> None:
    for path in maps.glob("*.toml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "group.toml").write_text('resource = "Group"\n', "utf-8")
    env.setenv("MAPS", str(tmp_path))
    told = check()
    assert told.failed == ["maps"]
    assert "group.toml" in told["maps"][1]


# --- virtual tables ----------------------------------------------------------------------------


def test_virtual_tables_that_nobody_made_are_named(env: pytest.MonkeyPatch) -> None:
    env.setenv("MAP_PREFIX", "xyz")
    env.setenv("EXTERNAL_EVENTS", "Observation")
    told = check()
    assert told.failed == ["Dataverse privileges", "virtual tables", "external events"]
    assert "prvReadxyz_ve_observation" in told["Dataverse privileges"][1]
    assert "xyz_ve_observation" in told["virtual tables"][1]


def test_a_data_source_of_another_address_is_told(env: pytest.MonkeyPatch) -> None:
    env.setenv("FEED_URL", "https://other.example.org/api/odata/")
    told = check()
    assert told.failed == ["data source"]
    assert mend(told, "data source") == remedies.PROVISION


def test_a_feed_whose_key_is_another_is_told_and_one_without_a_key_is_only_knocked_at(
    env: pytest.MonkeyPatch,
) -> None:
    env.setenv("FEED_KEY", "an-old-key")
    told = check()
    assert told.failed == ["feed"]
    assert "an-old-key" not in told.text
    env.delenv("FEED_KEY")
    assert check()["feed"] == (
        "ok",
        "answers, and requires a key; set FEED_KEY to check more",
    )


@pytest.mark.usefixtures("env")
def test_a_feed_that_is_not_published_is_told() -> None:
    told = check(feed=lambda request: httpx.Response(404))
    assert told.failed == ["feed"]
    assert "publish" in mend(told, "feed")


# --- clocks and identity -----------------------------------------------------------------------


@pytest.mark.usefixtures("env")
def test_a_clock_that_is_an_hour_ahead_is_told_by_every_service() -> None:
    told = check(lambda ends: replace(ends, now=lambda: datetime.now(UTC) + timedelta(hours=1)))
    assert told.failed == ["clock of storage", "clock of FHIR", "clock of Dataverse"]
    assert {mend(told, name) for name in told.failed} == {remedies.CLOCK}


class NoToken:
    async def get_token(self, *_: str) -> Awaitable[object]:
        raise RuntimeError("tenant of Zaphkiel")


def test_an_identity_without_tokens_is_told_first(env: pytest.MonkeyPatch) -> None:
    env.setenv("FHIR_SCOPE", "https://fhir.example/.default")
    told = check(lambda ends: replace(ends, credential=NoToken()))
    assert "no token for https://fhir.example/.default (RuntimeError)" in told["identity"][1]
    assert next(iter(told)) == "identity"
    assert "Zaphkiel" not in told.text
