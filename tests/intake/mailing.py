"""An inbox with a sender and a route behind it, and what Event Grid says of its files."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from dataclasses import dataclass, field, replace
from typing import Any

from integration.core.errors import Unavailable
from integration.core.model import Delivery, WorkItem
from integration.intake.inbox import Inbox, take_files
from integration.intake.quotas import Quotas
from integration.journal.inbox_files import InboxFile, MemoryInboxFiles
from integration.operations.answers import Answers, write_answer
from integration.queues.names import ANSWER_QUEUE, INBOX_QUEUE
from integration.senders.model import Quota, Sender, SenderPolicy
from integration.senders.proofs.folder import Folder
from integration.senders.proofs.function_key import FunctionKey
from tests.conftest import Route

CONTAINER = "inbox"


def make_sender(name: str = "lab", **values: Any) -> Sender:
    return Sender(name=name, proof=Folder(), **values)


def make_event(name: str, api: str = "PutBlob", container: str = CONTAINER, **other: Any) -> bytes:
    """As in https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage"""
    event = {
        "source": "/subscriptions/s/resourceGroups/r/providers/Microsoft.Storage/storageAccounts/a",
        "subject": f"/blobServices/default/containers/{container}/blobs/{name}",
        "type": "Microsoft.Storage.BlobCreated",
        "time": "2026-03-02T10:00:00Z",
        "id": "831e1650-001e-001b-66ab-eeb76e069631",
        "data": {"api": api, "eTag": "0x8D4BCC2E4835CD0", "url": f"https://a/{container}/{name}"},
        "specversion": "1.0",
    }
    return json.dumps(event | other).encode()


def as_json(resource: Any) -> bytes:
    return json.dumps(resource).encode()


def as_zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in members:
            # Of one time: tests are named by what they are given, on every worker alike.
            member = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            member.compress_type = method
            archive.writestr(member, content)
    return made.getvalue()


def as_gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)  # tests are named by it, on every worker alike


@dataclass(repr=False)
class Mailing:
    """What happens between a file and its answer."""

    route: Route
    files: Any
    senders: dict[str, Sender]
    quotas: Quotas
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def inbox(self) -> Inbox:
        inbox = Inbox(
            container=CONTAINER,
            files=self.files,
            intake=self.route.intake,
            queue=self.route.queue_sender,
            senders=self.senders,
            quotas=self.quotas,
            now=self.route.clock,
            max_wait=0.01,
        )
        return replace(inbox, **self.changes)

    @property
    def answers(self) -> Answers:
        return Answers(
            journal=self.route.journal,
            files=self.files,
            queue=self.route.queue_sender,
            now=self.route.clock,
            max_age=self.route.max_age,
        )

    async def hear(self, name: str, **event: Any) -> None:
        """An event comes."""
        await take_files(self.inbox, make_event(name, **event))

    async def send(self, name: str, content: bytes) -> None:
        """A sender puts a file into the inbox, and its event comes."""
        self.files.put(name, content)
        await self.hear(name)

    async def hear_own(self) -> list[float]:
        """Our own messages come, each after its delay. Return the delays."""
        waiting = self.route.queued(INBOX_QUEUE)
        for item, delay in waiting:
            self.route.queue_sender.sent.remove((INBOX_QUEUE, item, delay))
            self.route.clock.later(delay)
            await take_files(self.inbox, json.dumps(describe(item)).encode())
        return [delay for _, delay in waiting]

    async def finish(self) -> None:
        """All that is queued is done, up to the answers."""
        await self.route.process_all()
        for item, delay in self.route.queued(ANSWER_QUEUE):
            self.route.queue_sender.sent.remove((ANSWER_QUEUE, item, delay))
            await write_answer(self.answers, item)

    def answer(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.files.answers[name])
        return found

    @property
    def kept(self) -> list[Delivery]:
        """The deliveries."""
        return list(self.route.journal.deliveries.values())

    def statuses(self, name: str) -> list[str]:
        """What an answer says of each entry."""
        return [each["response"]["status"] for each in self.answer(name)["entry"]]

    def problem(self, name: str) -> str:
        """What an answer refuses."""
        outcome = self.answer(name)
        assert outcome["resourceType"] == "OperationOutcome"
        return "; ".join(issue["diagnostics"] for issue in outcome["issue"])


def describe(item: WorkItem) -> dict[str, Any]:
    return {"delivery": item.delivery, "file": item.file, "attempt": item.attempt} | (
        {"since": item.since} if item.since is not None else {}
    )


def make_mailing(route: Route, **senders: Any) -> Mailing:
    """Three senders: `lab` may do what it likes, `slow` one request a minute, `web` has no
    folder."""
    known = {
        "lab": make_sender(**senders),
        "slow": make_sender("slow", quota=Quota(requests_per_minute=1)),
        "held": make_sender("held", policy=SenderPolicy(refused_deliveries="hold")),
        "web": Sender(name="web", proof=FunctionKey()),
    }
    quotas = Quotas(lambda: route.clock().timestamp())
    return Mailing(route, MemoryInboxFiles(route.clock), known, quotas)


class Fragile(MemoryInboxFiles):
    """The worker is killed, or storage fails, at the chosen step."""

    breaks_at = ""
    error: BaseException = Unavailable("storage", "ServiceRequestError")

    def _break(self, step: str) -> None:
        if self.breaks_at == step:
            self.breaks_at = ""
            raise self.error

    async def read(self, file: InboxFile) -> bytes | None:
        self._break("read")
        return await super().read(file)

    async def delete(self, file: InboxFile) -> bool:
        self._break("delete")
        return await super().delete(file)

    async def write_answer(self, name: str, body: bytes) -> None:
        self._break("write_answer")
        await super().write_answer(name, body)


class Killed(BaseException):
    pass
