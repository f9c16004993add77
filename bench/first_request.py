"""Measure what the first request to the feed costs a fresh worker, in processor time.

`python -m bench.first_request` is that worker: it answers one request, and prints as JSON the
seconds that its parts took. What any first work of a worker costs is named apart: the import of
the storage SDKs, and the opening of the services.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping

from local.processes import PROJECT

ROUNDS = 3
_PATH = "msemr_observations"


def measure_first_request(settings: Mapping[str, str]) -> dict[str, float]:
    """Return the least processor seconds of a few fresh workers, by part."""
    rounds = [_run_worker(settings) for _ in range(ROUNDS)]
    return {part: min(found[part] for found in rounds) for part in rounds[0]}


def _run_worker(settings: Mapping[str, str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.first_request"],
        env={**os.environ, **settings},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


async def _answer_first_request() -> dict[str, float]:
    import function_app  # noqa: F401  # as a worker does before it takes requests
    from integration.app import wiring
    from integration.journal.audit_entry import Reader

    started = time.process_time()
    parts = await wiring.get_parts()
    opened = time.process_time()
    from integration.virtual_tables.answer import answer_request
    from integration.virtual_tables.odata_request import ODataRequest

    request = ODataRequest(
        method="GET", root="http://feed/api/odata/", path=_PATH, query="$top=50", headers={}
    )
    answer = await answer_request(parts.virtual_tables, request, Reader())
    assert answer.status == 200, answer.body
    answered = time.process_time()
    await wiring.close_parts()
    return {"services": opened - started, "feed": answered - opened}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_answer_first_request())))
