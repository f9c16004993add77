"""What a unit sends, as an object."""

from __future__ import annotations

import json
from typing import Any

from integration.fhir.units import UnitEntry


def body(entry: UnitEntry) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(entry.body))
    return found
