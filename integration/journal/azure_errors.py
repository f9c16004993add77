"""Errors of the storage SDKs, as this app's own errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from azure.core.exceptions import AzureError, ClientAuthenticationError

from integration.core.errors import Misconfigured, Unavailable


@asynccontextmanager
async def translate_storage_errors() -> AsyncIterator[None]:
    """Raise Unavailable or Misconfigured instead of an error of the SDK.

    They have no cause (`from None`): the SDK's texts hold addresses.
    """
    try:
        yield
    except AzureError as error:
        status = getattr(error, "status_code", None)
        if isinstance(error, ClientAuthenticationError) or status == 403:
            raise Misconfigured(
                "storage refused this app's identity: give it its roles on blobs, queues and tables"
            ) from None
        if status == 400:
            raise Misconfigured(
                f"storage refused a request as malformed{_get_code(error)}: is it of the API "
                "version that this app speaks? Azurite wants "
                "--skipApiVersionCheck beside a newer SDK"
            ) from None
        if status == 413:
            raise  # a defect of this app: it must be seen, and trying again does not help
        raise Unavailable("storage", type(error).__name__) from None


def _get_code(error: AzureError) -> str:
    """Return the service's error code. Its message may quote what was sent.

    https://learn.microsoft.com/rest/api/storageservices/status-and-error-codes2
    """
    code = getattr(error, "error_code", None)
    text = str(getattr(code, "value", code) or "")
    return f" ({text})" if re.fullmatch("[A-Za-z]{1,64}", text) else ""
