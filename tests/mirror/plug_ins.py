"""An organisation of its own kind: with alternate keys, and plug-ins that refuse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from local.dataverse.tables import Additions
from tests.doubles import DataverseDouble, RecordedRequest

UNEXPECTED, REFUSED = "0x80040224", "0x80040265"

# An organisation that allows each number once, and each mobile phone.
ONE_OF_EACH_NUMBER: Additions = {
    "msemr_medicalidentifier": {"keys": [{"name": "number_key", "columns": ["msemr_value"]}]},
    "contact": {"keys": [{"name": "phone_key", "columns": ["mobilephone"]}]},
}


class Particular(DataverseDouble):
    """An organisation with a plug-in: it refuses to write what contains one of these texts."""

    def __init__(self, additions: Additions = ONE_OF_EACH_NUMBER) -> None:
        super().__init__(additions)
        self.refused: dict[str, int] = {}  # the status, by text
        self.codes: dict[int, str] = {500: UNEXPECTED}  # by status, where it is not REFUSED
        self.names_the_change = True
        self.batch_status: int | None = None  # of the whole; None: that of the part
        self.before_write: tuple[int, Callable[[], Awaitable[object]]] | None = None
        self.after_write: Callable[[], Awaitable[object]] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        writes = b"changeset_" in content or request.method in ("PATCH", "DELETE")
        parts = content.split(b"Content-ID: ")[1:] or [content]
        if writes:
            for text, status in self.refused.items():
                for number, part in enumerate(parts, 1):
                    if text.encode() in part or text in request.url.path:
                        self.received.append(self._record(request))
                        return self._refuse(number, status, alone=len(parts) == 1)
            await self._count_write()
        response = await super().handle_async_request(request)
        step, self.after_write = (self.after_write, None) if writes else (None, self.after_write)
        if step is not None:
            await step()
        return response

    async def _count_write(self) -> None:
        if self.before_write is None:
            return
        count, step = self.before_write
        self.before_write = (count - 1, step) if count > 1 else None
        if count == 1:
            await step()

    def _record(self, request: httpx.Request) -> RecordedRequest:
        return RecordedRequest("PATCH", request.url.path, dict(request.headers), None)

    def _refuse(self, number: int, status: int, *, alone: bool) -> httpx.Response:
        """As the real one does: https://github.com/MicrosoftDocs/powerapps-docs/issues/2843"""
        code = self.codes.get(status, REFUSED)
        body = b'{"error": {"code": "%s", "message": "no"}}' % code.encode()
        if alone:
            return httpx.Response(status, content=body)
        name = f"Content-ID: {number}\r\n" if self.names_the_change else ""
        content = (
            "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n"
            f"Content-Type: application/http\r\n{name}\r\n"
            f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\n\r\n"
        ).encode()
        headers = {"content-type": "multipart/mixed; boundary=b"}
        return httpx.Response(
            self.batch_status or status,
            content=content + body + b"\r\n--c--\r\n--b--\r\n",
            headers=headers,
        )
