"""Decode a queue message and build the QueueMessage for a function. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Any

from azure.functions import meta
from azure.functions.queue import QueueMessageInConverter
from azure.storage.queue import QueueMessage

from local.host.functions import Function


class Undecodable(Exception):
    """The text does not have the encoding that messageEncoding states."""


def decode(text: str, is_base64: bool) -> bytes:
    """https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue"""
    if not is_base64:
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Undecodable from error


def build_trigger_value(message: QueueMessage, body: bytes, function: Function) -> Any:
    """Build the value with the Python worker's own converter, fed as the host feeds it.

    Raises Undecodable if the body is not UTF-8.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Undecodable from error
    metadata = {
        "Id": _encode_json(message.id),
        "DequeueCount": _encode_json(message.dequeue_count),
        "InsertionTime": _encode_json(_format_iso(message.inserted_on)),
        "ExpirationTime": _encode_json(_format_iso(message.expires_on)),
        "NextVisibleTime": _encode_json(_format_iso(message.next_visible_on)),
        "PopReceipt": _encode_json(message.pop_receipt),
    }
    binary = str(function.trigger.get("dataType") or "").endswith(("BINARY", "2"))
    datum = meta.Datum(body, "bytes") if binary else meta.Datum(text, "string")
    return QueueMessageInConverter.decode(datum, trigger_metadata=metadata)


def _format_iso(instant: datetime | None) -> str | None:
    return instant.isoformat() if instant else None


def _encode_json(value: object) -> meta.Datum:
    return meta.Datum(json.dumps(value), "json")
