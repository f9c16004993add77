"""The page Settings: what this app runs with, and which alerts would ring.

It costs what the status report costs, which one worker reads once in five seconds, and one storage
operation for what needs attention. Settings were read when the worker started.
"""

from __future__ import annotations

import asyncio
from itertools import groupby

from integration.operations.alerts import AlertState, judge_alerts
from integration.operations.attention import read_newest
from integration.operations.status import report_status
from integration.pages.http import Reply
from integration.pages.view import View, render

# The newest concerns that are counted, in one storage operation.
_MAX_CONCERNS = 1000


async def show_settings(view: View) -> Reply:
    """Show the alerts that would ring, then every setting with its value in use."""
    parts = view.parts
    report, found = await asyncio.gather(
        report_status(parts.status_check),
        read_newest(parts.journal, _MAX_CONCERNS),
    )
    alerts = judge_alerts(report, found)
    groups = groupby(parts.app.settings, lambda setting: setting.group)
    return render(
        view,
        "settings.html",
        alerts=alerts,
        ringing=sum(alert.known.state is AlertState.RINGS for alert in alerts),
        groups=[(title, list(settings)) for title, settings in groups],
        app=parts.app,
    )
