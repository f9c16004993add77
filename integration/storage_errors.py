"""Every failure of the storage SDKs, as what to do next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

from integration.errors import Misconfigured, Unavailable


@asynccontextmanager
async def storage_errors() -> AsyncIterator[None]:
    """Raises Unavailable or Misconfigured instead. `from None`: addresses stay out of it."""
    try:
        yield
    except AzureError as error:
        status = getattr(error, "status_code", None)
        if isinstance(error, ClientAuthenticationError) or status == 403:
            raise Misconfigured(
                "storage refused this app's identity: give it its roles on blobs, queues and tables"
            ) from None
        if isinstance(error, HttpResponseError) and status in (400, 413):
            raise  # a mistake of ours: to be seen, not to be tried again for days
        raise Unavailable("storage", type(error).__name__) from None
