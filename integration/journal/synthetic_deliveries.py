"""What makes rows change without a sender's delivery: noted as a delivery that is done, so that its
rows are listed, replayed and forgotten as those of any other.
"""

from __future__ import annotations

from datetime import datetime

from integration.core.model import Delivery, DeliveryRequest, Status
from integration.journal.store import Journal, Payload

# As a table can hold it; no sender is called that.
_NO_SENDER = ""


async def add_synthetic_delivery(
    journal: Journal, id_: str, kind: str, began: datetime, ended: datetime
) -> None:
    """It has no bytes and no entries. Repeating it changes nothing."""
    delivery = Delivery(
        id_,
        _NO_SENDER,
        id_,
        "",
        began,
        status=Status.DONE,
        kind=kind,
        entries=0,
        bytes=0,
        finished=ended,
    )
    await journal.add_delivery(delivery, Payload(DeliveryRequest("POST"), b""))
