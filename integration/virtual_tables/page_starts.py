"""Remember where the pages of lists begin, so that `$skip` need not read all that comes before.

A FHIR server has no offsets. A client that pages by `$skip`, as Dataverse's provider does, would
have page n cost n pages. What one worker does not remember it finds by reading, which is slower.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from integration.virtual_tables.skip_token import PageCursor

# A query with this many pages takes some 50 KB: the address of a page has a few hundred characters.
_MAX_QUERIES = 200
_MAX_PAGES = 100

# Seconds. Rows are written and deleted meanwhile, and servers forget the pages of a search.
_LIFETIME = 600.0


@dataclass(slots=True)
class PageStarts:
    """Where pages begin, by query and number of rows before them; whoever asks.

    A list that is read again from its beginning replaces what was remembered of it, page by page.
    """

    clock: Callable[[], float] = time.monotonic
    max_queries: int = _MAX_QUERIES
    max_pages: int = _MAX_PAGES
    _pages: OrderedDict[Hashable, OrderedDict[int, tuple[PageCursor, float]]] = field(
        default_factory=OrderedDict
    )

    def find(self, query: Hashable, rows: int) -> tuple[int, PageCursor] | None:
        """Return the last page that begins at or before this row, with the number of its first
        row."""
        pages, now = self._pages.get(query) or OrderedDict(), self.clock()
        known = [row for row, (_, until) in pages.items() if row <= rows and until > now]
        return (max(known), pages[max(known)][0]) if known else None

    def add(self, query: Hashable, row: int, cursor: PageCursor) -> None:
        """Remember that the row with this number is where `cursor` is. Forget the oldest."""
        pages = self._pages.setdefault(query, OrderedDict())
        self._pages.move_to_end(query)
        pages[row] = cursor, self.clock() + _LIFETIME
        pages.move_to_end(row)
        if len(pages) > self.max_pages:
            pages.popitem(last=False)
        if len(self._pages) > self.max_queries:
            self._pages.popitem(last=False)

    def forget(self, query: Hashable) -> None:
        """Forget a query: the server has forgotten its pages."""
        self._pages.pop(query, None)
