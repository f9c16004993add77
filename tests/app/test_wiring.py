"""Settings become clients, once, and as the upstreams need them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from integration.app import services, shared_parts, wiring
from integration.app.http_clients import ClientContext, open_upstream
from integration.app.settings import Settings, UpstreamSettings, read_settings
from integration.core.activity_recorder import ActivityRecorder
from integration.core.errors import Misconfigured
from integration.core.http import BoundedClient, Upstream
from integration.journal.table_keys import is_delivery_id
from local.processes import PROJECT
from local.services import Running

HEAVY = [
    "azure.data.tables",
    "azure.identity",
    "azure.monitor",
    "azure.storage.blob",
    "antlr4",
    "fhir.resources",
    "fhirpathpy",
    "pydantic",
]


def settings(**changes: str) -> Settings:
    return read_settings(
        {
            "AzureWebJobsStorage": "UseDevelopmentStorage=true",
            "FHIR_URL": "https://fhir.example",
            "DATAVERSE_URL": "https://org.example",
            **changes,
        }
    )


@pytest.fixture
async def build_upstream() -> AsyncIterator[Any]:
    """An upstream as the app builds it, from a scope and a credential."""
    async with AsyncExitStack() as stack:

        def built(scope: str | None = None) -> Upstream:
            at = UpstreamSettings("https://fhir.example", scope, 7, 90)
            return open_upstream(
                "FHIR server", at, ClientContext(object(), ActivityRecorder(), stack)
            )

        yield built


def loaded(code: str, **env: str) -> list[str]:
    """Which of the heavy libraries a new process has after this."""
    reported = (
        f"\nimport json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}{reported}"],
        cwd=PROJECT,
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    names: list[str] = json.loads(done.stdout)
    return names


def stated(azurite: Running) -> dict[str, str]:
    """Settings of an app that has storage, and upstreams that are not there."""
    return {
        "AzureWebJobsStorage": azurite.storage,
        "FHIR_URL": "http://127.0.0.1:1/fhir",
        "FHIR_SCOPE": "none",
        "DATAVERSE_URL": "http://127.0.0.1:1",
        "DATAVERSE_SCOPE": "none",
    }


def test_a_endpoint_opens_without_the_heavy_libraries() -> None:
    """A cold start is paid by whoever sends first; what storage needs comes with the first use."""
    assert loaded("import function_app") == []


def test_a_worker_without_rows_to_write_needs_no_paths_of_maps(azurite: Running) -> None:
    place = "import asyncio; from integration.app import wiring; parts = asyncio.run(wiring.get_parts())"
    storage = ["azure.data.tables", "azure.storage.blob"]
    assert loaded(place, **stated(azurite)) == storage
    assert loaded(f"{place}; assert parts.mirror is parts.mirror", **stated(azurite)) == [
        *storage,
        "antlr4",
        "fhirpathpy",
    ]


def test_mirror_and_feed_share_the_maps_that_were_understood(azurite: Running) -> None:
    """To understand them twice would make the first request to the feed wait for nothing."""
    code = """
import asyncio
from integration.app import wiring

parts = asyncio.run(wiring.get_parts())
mirrored = parts.mirror.maps["Observation"].attributes
shown = parts.virtual_tables.entity_types["Observation"].attributes["msemr_status"]
assert parts.virtual_tables is parts.virtual_tables
assert any(one is shown for one in mirrored)
"""
    assert "fhirpathpy" in loaded(code, **stated(azurite))


async def test_a_setting_of_the_maps_that_is_wrong_stops_every_endpoint(
    azurite: Running,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else changes would be queued that nobody can mirror."""
    for name, value in stated(azurite).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MAPS_ENABLED", "nobody")
    try:
        with pytest.raises(Misconfigured, match="there is no map nobody to enable"):
            await wiring.get_parts()
    finally:
        await wiring.close_parts()


async def test_a_misspelt_type_of_external_events_stops_every_endpoint(
    azurite: Running,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else nobody would ever hear of it, and nobody would know why."""
    for name, value in stated(azurite).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EXTERNAL_EVENTS", "Observation,Observatoin,Patient")
    monkeypatch.setenv("MAP_PREFIX", "abc")
    try:
        with pytest.raises(
            Misconfigured, match="there is no virtual table of Observatoin, Patient"
        ):
            await wiring.get_parts()
    finally:
        await wiring.close_parts()


def test_a_laptop_needs_no_identity() -> None:
    chosen = settings(FHIR_SCOPE="none", DATAVERSE_SCOPE="none")
    assert services.build_credential(chosen, AsyncExitStack()) is None


@pytest.mark.parametrize("open_", ["FHIR_SCOPE", "DATAVERSE_SCOPE"])
async def test_one_upstream_that_wants_a_token_is_enough_for_an_identity(open_: str) -> None:
    async with AsyncExitStack() as stack:
        credential = services.build_credential(settings(**{open_: "none"}), stack)
        assert hasattr(credential, "get_token")


async def test_an_upstream_is_asked_in_time_and_within_its_places(build_upstream: Any) -> None:
    made: Upstream = build_upstream()
    assert made.http.timeout == httpx.Timeout(90, connect=10)
    assert made.limiter.limit.current == 7
    assert made.tokens is None
    assert made.base == "https://fhir.example"


async def test_an_upstream_with_a_scope_gets_tokens(build_upstream: Any) -> None:
    assert build_upstream("https://fhir.example/.default").tokens is not None


async def test_an_upstream_s_cookies_are_not_kept(build_upstream: Any) -> None:
    """Dataverse's affinity cookie would send all requests to one of its servers."""
    made: Upstream = build_upstream()
    received: list[httpx.Request] = []

    async def hear(request: httpx.Request) -> httpx.Response:
        received.append(request)
        return httpx.Response(200, headers={"set-cookie": "ARRAffinity=1; Path=/"})

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(hear), cookies=made.http.cookies.jar
    ) as http:
        await http.get("https://fhir.example/1")
        await http.get("https://fhir.example/2")
    assert "cookie" not in received[1].headers


async def test_an_upstream_s_redirects_are_not_followed(build_upstream: Any) -> None:
    assert build_upstream().http.follow_redirects is False


@pytest.mark.parametrize(
    ("given", "identity"),
    [({}, False), ({"FETCH_FROM": "https://a.example", "FETCH_SCOPE": "api://a/.default"}, True)],
)
async def test_a_source_that_wants_a_token_is_enough_for_an_identity(
    given: dict[str, str], identity: bool
) -> None:
    laptop = {"FHIR_SCOPE": "none", "DATAVERSE_SCOPE": "none"}
    async with AsyncExitStack() as stack:
        credential = services.build_credential(settings(**laptop, **given), stack)
        assert (credential is not None) is identity


async def test_sources_are_asked_with_their_own_token_within_bounds_and_not_led_away() -> None:
    chosen = settings(
        FETCH_FROM="https://a.example/fhir,https://b.example",
        FETCH_SCOPE="none,api://b/.default",
        FETCH_PAGES="7",
        MAX_DELIVERY_BYTES="1000",
    )
    async with AsyncExitStack() as stack:
        made = services.open_sources(chosen, ClientContext(object(), ActivityRecorder(), stack))
        first, second = (
            made.upstreams[base] for base in ("https://a.example/fhir", "https://b.example")
        )
        assert (made.max_pages, made.max_bytes) == (7, 1000)
        assert (first.tokens, second.tokens is None) == (None, False)
        for item in (first, second):
            assert isinstance(item.http, BoundedClient)
            assert item.http.follow_redirects is False


def test_the_clock_is_in_utc_and_ids_are_deliveries() -> None:
    now = services.utc_now()
    assert now.tzinfo is UTC
    assert abs((now - datetime.now(UTC)).total_seconds()) < 5
    ids = {services.new_delivery_id(now) for _ in range(100)}
    assert len(ids) == 100
    assert all(is_delivery_id(id_) for id_ in ids)


async def test_missing_settings_are_named_and_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that could not start does not stay broken: the next request looks again."""
    for name in ("AzureWebJobsStorage", "FHIR_URL", "DATAVERSE_URL"):
        monkeypatch.delenv(name, raising=False)
    for _ in range(2):
        with pytest.raises(Misconfigured, match=r"FHIR_URL, DATAVERSE_URL, AzureWebJobsStorage"):
            await wiring.get_parts()
    monkeypatch.setenv("FHIR_URL", "https://fhir.example")
    with pytest.raises(Misconfigured) as caught:
        await wiring.get_parts()
    assert "FHIR_URL" not in str(caught.value)


def test_the_last_unit_of_a_work_item_ends_within_the_function_s_time() -> None:
    """It may begin when its time is nearly over, and holds its locks for a lease at most."""
    hours, minutes, seconds = map(
        int, json.loads((PROJECT / "host.json").read_text())["functionTimeout"].split(":")
    )
    timeout = 3600 * hours + 60 * minutes + seconds
    lease = 3.0 * settings().fhir.timeout
    assert shared_parts.MAX_DURATION + lease <= timeout
