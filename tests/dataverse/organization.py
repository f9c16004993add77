"""The stand-in for Dataverse, in process."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx

from integration.core.model import Request, Response


class Organization:
    """Answers requests as they are built."""

    def __init__(self, app: Any) -> None:
        transport = httpx.ASGITransport(app=app)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://dataverse/")
        self.received: list[Request] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def send(self, request: Request) -> Response:
        self.received.append(request)
        answer = await self._http.request(
            request.method, request.path, content=request.body, headers=dict(request.headers)
        )
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status_code, headers, answer.content)
