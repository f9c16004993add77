"""Link to the rows of Dataverse that a text names. Pure.

The mirror names a row as `contact(<key>)`. Whoever reads that wants to see the row.
"""

from __future__ import annotations

import re
from urllib.parse import urlencode

from markupsafe import Markup, escape

_ROW = re.compile(r"\b([a-z][a-z0-9_]*)\(([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\)")


def build_form_link(dataverse_url: str, table: str, key: str) -> str:
    """Return the address of a row's form.

    https://learn.microsoft.com/power-apps/developer/model-driven-apps/open-forms-views-dialogs-reports-url
    """
    query = urlencode({"etn": table, "id": key, "pagetype": "entityrecord"})
    return f"{dataverse_url.rstrip('/')}/main.aspx?{query}"


def link_rows(text: str, dataverse_url: str) -> Markup:
    """Return a text with each row that it names as a link to the form."""
    shown, end = Markup(), 0
    for found in _ROW.finditer(text):
        address = build_form_link(dataverse_url, found[1], found[2])
        link = Markup('<a href="{}" rel="noreferrer">{}</a>').format(address, found[0])
        shown += escape(text[end : found.start()]) + link
        end = found.end()
    return shown + escape(text[end:])
