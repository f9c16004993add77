"""Deliveries for row changes that no sender has caused, such as a reconcile. They are done at once;
their rows are listed, replayed and deleted as those of any other delivery.
"""

from __future__ import annotations

from datetime import datetime

from integration.core.model import Delivery, DeliveryRequest, Status
from integration.journal.store import Journal, Payload

# A table can hold it, and no sender has this name.
_NO_SENDER = ""


async def add_synthetic_delivery(
    journal: Journal, id_: str, kind: str, began: datetime, ended: datetime
) -> None:
    """Add a delivery without bytes and entries. Repeating it changes nothing."""
    delivery = Delivery(
        id=id_,
        sender=_NO_SENDER,
        key=id_,
        digest="",
        accepted=began,
        status=Status.DONE,
        kind=kind,
        entries=0,
        bytes=0,
        finished=ended,
    )
    await journal.add_delivery(delivery, Payload(DeliveryRequest("POST"), b""))
