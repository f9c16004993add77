"""Whether what was read from FHIR may be written over what a row shows.

A later state may. An earlier one never is: either FHIR has changed since it was read, or the server
read from a copy that lags, or it was restored. So it is read again, now and by later attempts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.core.errors import Unavailable
from integration.core.state_version import Order, StateVersion, describe, is_believable
from integration.fhir.client import FhirServer
from integration.mapping import row_version
from integration.mirror.row_sink import MirrorJob


async def is_current(
    fhir: FhirServer,
    job: MirrorJob,
    version: StateVersion,
    row: Mapping[str, Any],
    *,
    fhir_is_right: bool,
) -> bool:
    """Whether this version is the current one, as far as the row can tell. False: FHIR has changed
    since it was read. Raises Unavailable when FHIR still shows an earlier state than the row.

    `fhir_is_right`: see `row_version.compare_with_row`."""
    order = row_version.compare_with_row(job.entity, version, row, fhir_is_right=fhir_is_right)
    is_accepted = is_believable(order, job.item.attempt)
    if is_accepted and order is not Order.PROBABLY_NEWER:
        return True
    if (await fhir.read_current(job.item)).version != version:
        return False
    if is_accepted:
        return True
    raise Unavailable(
        fhir.upstream.name,
        f"a read shows {describe(version)}, and the row another state that may be later: "
        "the server may have read from a copy that lags. If it was restored, run reconcile with "
        "--fhir-is-right",
    )
