"""A journal at which a worker ends, when it has written to the FHIR server and would record it."""

from __future__ import annotations

from collections.abc import Sequence

from integration.core.errors import Unavailable
from integration.core.model import EntryResult
from integration.journal.store import MemoryJournal


class Killed(BaseException):
    """The worker has ended."""


class KillingJournal(MemoryJournal):
    """Ends the worker once, when it has written and says so."""

    kills = False

    def _end(self) -> None:
        if self.kills:
            self.kills = False
            raise Killed

    async def add_entry_results(self, id_: str, lane: int, results: Sequence[EntryResult]) -> None:
        self._end()
        await super().add_entry_results(id_, lane, results)

    async def save_entry_results(self, id_: str, lane: int, results: Sequence[EntryResult]) -> None:
        self._end()
        await super().save_entry_results(id_, lane, results)


class FailingJournal(KillingJournal):
    """Does not answer then; the worker goes on."""

    def _end(self) -> None:
        if self.kills:
            self.kills = False
            raise Unavailable("storage", "the journal does not answer")
