"""Build the clients of upstreams that are reached over HTTP, and the credential they use."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext
from typing import Any

import httpx

from integration.app.settings import UpstreamSettings
from integration.core.activity_recorder import ActivityRecorder
from integration.core.http import BoundedClient, TokenCache, Upstream, build_limiter


@dataclass(frozen=True, slots=True)
class ClientContext:
    """What all clients share. `exit_stack` closes them."""

    credential: Any
    activities: ActivityRecorder
    exit_stack: AsyncExitStack


def open_credential(client_id: str | None, exit_stack: AsyncExitStack) -> Any:
    """Open the credential for all upstreams: a user-assigned identity by `client_id`, or the
    default one."""
    from azure.identity.aio import DefaultAzureCredential

    credential = DefaultAzureCredential(managed_identity_client_id=client_id)
    exit_stack.push_async_callback(credential.close)
    return credential


def open_upstream(
    name: str, service: UpstreamSettings, context: ClientContext, max_bytes: int | None = None
) -> Upstream:
    """Open the client of an upstream. With `max_bytes`, longer responses are cut off."""
    client = partial(BoundedClient, max_bytes) if max_bytes else httpx.AsyncClient
    concurrency = service.concurrency
    http = client(
        verify=_load_tls_context(),
        timeout=httpx.Timeout(service.timeout, connect=10.0),
        limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        # Requests spread over Dataverse's servers only without its affinity cookie:
        # https://learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests
        cookies=_refuse_cookies(),
        follow_redirects=False,
    )
    context.exit_stack.push_async_callback(http.aclose)
    tokens = TokenCache(context.credential, service.scope) if service.scope else None
    limiter = build_limiter(concurrency)
    return Upstream(name, service.url, http, limiter, tokens=tokens, activities=context.activities)


@cache
def _load_tls_context() -> SSLContext:
    """Load the certificates of all authorities once, since that takes long."""
    return httpx.create_ssl_context()


def _refuse_cookies() -> CookieJar:
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
