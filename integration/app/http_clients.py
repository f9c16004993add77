"""Settings become clients of the neighbours that speak HTTP, and the identity that asks them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext
from typing import Any

import httpx

from integration.app.settings import UpstreamSettings
from integration.core.activity import ActivityRecorder
from integration.core.http import BoundedClient, TokenCache, Upstream, build_limiter


@dataclass(frozen=True, slots=True)
class ClientContext:
    """Who asks the neighbours, where that is noted, and what closes their clients."""

    credential: Any
    activities: ActivityRecorder
    exit_stack: AsyncExitStack


def open_credential(client_id: str | None, open_: AsyncExitStack) -> Any:
    """One identity for all neighbours: a user-assigned one by `client_id`, or what is there."""
    from azure.identity.aio import DefaultAzureCredential

    found = DefaultAzureCredential(managed_identity_client_id=client_id)
    open_.push_async_callback(found.close)
    return found


def open_upstream(
    name: str, service: UpstreamSettings, caller: ClientContext, max_bytes: int | None = None
) -> Upstream:
    """A neighbour; of one with `max_bytes`, longer answers are cut."""
    client = partial(BoundedClient, max_bytes) if max_bytes else httpx.AsyncClient
    most = service.concurrency
    http = client(
        verify=_tls(),
        timeout=httpx.Timeout(service.timeout, connect=10.0),
        limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
        # Requests spread over Dataverse's servers only without its affinity cookie:
        # https://learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests
        cookies=_no_cookies(),
        follow_redirects=False,
    )
    caller.exit_stack.push_async_callback(http.aclose)
    tokens = TokenCache(caller.credential, service.scope) if service.scope else None
    return Upstream(
        name, service.url, http, build_limiter(most), tokens, activities=caller.activities
    )


@cache
def _tls() -> SSLContext:
    """Shared, since to read all authorities' certificates takes long."""
    return httpx.create_ssl_context()


def _no_cookies() -> CookieJar:
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
