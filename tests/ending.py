"""A worker that ends at a call of the journal, once: as one that is killed there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from integration.journal.store import MemoryJournal
from tests.conftest import Route

When = Callable[[dict[str, Any]], bool]


class _Ending(MemoryJournal):
    at: str = ""
    is_after: bool = False
    when: When | None = None

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name != super().__getattribute__("at"):
            return found

        async def work(*args: Any, **options: Any) -> Any:
            when = super(_Ending, self).__getattribute__("when")
            if when is not None and not when(options):
                return await found(*args, **options)
            is_after = type(self).is_after
            type(self).at = ""
            if is_after:
                await found(*args, **options)
            raise ConnectionError

        return work


def end_worker(route: Route, at: str, when: When | None = None, *, is_after: bool = False) -> None:
    """Have the worker end before or after the next call `at` for whose options `when` holds."""
    known = route.journal
    names = MemoryJournal.__dataclass_fields__
    given = {"at": at, "is_after": is_after, "when": staticmethod(when) if when else None}
    made = type("EndingOnce", (_Ending,), given)
    route.journal = made(**{name: getattr(known, name) for name in names})
