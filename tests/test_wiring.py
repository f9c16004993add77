"""Settings become clients, once, and as the neighbours need them."""

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

from integration import wiring
from integration.activity import Activities
from integration.errors import Misconfigured
from integration.journal.keys import is_delivery_id
from integration.settings import Settings, from_env
from integration.transport import BoundedClient, Neighbour
from local.child import PROJECT

HEAVY = [
    "azure.data.tables",
    "azure.identity",
    "azure.monitor",
    "azure.storage.blob",
    "fhir.resources",
    "pydantic",
]


def settings(**changes: str) -> Settings:
    return from_env(
        {
            "AzureWebJobsStorage": "UseDevelopmentStorage=true",
            "FHIR_URL": "https://fhir.example",
            "DATAVERSE_URL": "https://org.example",
            **changes,
        }
    )


@pytest.fixture
async def neighbour() -> AsyncIterator[Any]:
    """A neighbour as the app builds it, from a scope and a credential."""
    async with AsyncExitStack() as stack:

        def built(scope: str | None = None, **changes: str) -> Neighbour:
            made = wiring._neighbour(
                "FHIR server",
                "https://fhir.example",
                scope,
                7,
                settings(**changes),
                object(),
                Activities(),
            )
            stack.push_async_callback(made.http.aclose)
            return made

        yield built


def test_a_door_opens_without_the_heavy_libraries() -> None:
    """A cold start is paid by whoever sends first; what storage needs comes with the first use."""
    code = f"import json, sys, function_app; print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=PROJECT,
        env={},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    # The journal's door imports only what names its own store.
    assert json.loads(done.stdout) == []


def test_a_laptop_needs_no_identity() -> None:
    assert wiring._credential(settings(FHIR_SCOPE="none", DATAVERSE_SCOPE="none")) is None


@pytest.mark.parametrize("open_", ["FHIR_SCOPE", "DATAVERSE_SCOPE"])
async def test_one_neighbour_that_wants_a_token_is_enough_for_an_identity(open_: str) -> None:
    async with wiring._credential(settings(**{open_: "none"})) as credential:
        assert hasattr(credential, "get_token")


async def test_a_neighbour_is_asked_in_time_and_within_its_places(neighbour: Any) -> None:
    made: Neighbour = neighbour(NEIGHBOUR_TIMEOUT="90")
    assert made.http.timeout == httpx.Timeout(90, connect=10)
    assert made.places.limit.now == 7
    assert made.tokens is None
    assert made.base == "https://fhir.example"


async def test_a_neighbour_with_a_scope_gets_tokens(neighbour: Any) -> None:
    assert neighbour("https://fhir.example/.default").tokens is not None


async def test_a_neighbour_s_cookies_are_not_kept(neighbour: Any) -> None:
    """Dataverse's affinity cookie would send all requests to one of its servers."""
    made: Neighbour = neighbour()
    heard: list[httpx.Request] = []

    async def hear(request: httpx.Request) -> httpx.Response:
        heard.append(request)
        return httpx.Response(200, headers={"set-cookie": "ARRAffinity=1; Path=/"})

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(hear), cookies=made.http.cookies.jar
    ) as http:
        await http.get("https://fhir.example/1")
        await http.get("https://fhir.example/2")
    assert "cookie" not in heard[1].headers


async def test_a_neighbour_s_redirects_are_not_followed(neighbour: Any) -> None:
    assert neighbour().http.follow_redirects is False


@pytest.mark.parametrize(
    ("given", "identity"),
    [({}, False), ({"FETCH_FROM": "https://a.example", "FETCH_SCOPE": "api://a/.default"}, True)],
)
async def test_a_source_that_wants_a_token_is_enough_for_an_identity(
    given: dict[str, str], identity: bool
) -> None:
    laptop = {"FHIR_SCOPE": "none", "DATAVERSE_SCOPE": "none"}
    async with AsyncExitStack() as stack:
        credential = wiring._credential(settings(**laptop, **given))
        if credential is not None:
            await stack.enter_async_context(credential)
        assert (credential is not None) is identity


async def test_sources_are_asked_with_their_own_token_within_bounds_and_not_led_away() -> None:
    made = wiring._sources(
        settings(
            FETCH_FROM="https://a.example/fhir,https://b.example",
            FETCH_SCOPE="none,api://b/.default",
            FETCH_PAGES="7",
            MAX_DELIVERY_BYTES="1000",
        ),
        object(),
        Activities(),
    )
    first, second = made.neighbours["https://a.example/fhir"], made.neighbours["https://b.example"]
    assert (made.max_pages, made.max_bytes) == (7, 1000)
    assert (first.tokens, second.tokens is None) == (None, False)
    for each in (first, second):
        assert isinstance(each.http, BoundedClient)
        assert each.http.follow_redirects is False
        await each.http.aclose()


def test_the_clock_is_in_utc_and_ids_are_deliveries() -> None:
    now = wiring._now()
    assert now.tzinfo is UTC
    assert abs((now - datetime.now(UTC)).total_seconds()) < 5
    ids = {wiring._new_id(now) for _ in range(100)}
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
            await wiring.parts()
    monkeypatch.setenv("FHIR_URL", "https://fhir.example")
    with pytest.raises(Misconfigured) as caught:
        await wiring.parts()
    assert "FHIR_URL" not in str(caught.value)
