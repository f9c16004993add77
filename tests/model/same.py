"""Are two FHIR servers in the same state, but for the ids that somebody had to make up?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.model.links import replace_links

Body = dict[str, Any]

# Ids that a sender chose: see deliveries. All others were made up on the way.
_CHOSEN = re.compile(r"[A-Za-z]+/(known|own)-\d")


def describe_state(stored: Mapping[str, Body]) -> list[str]:
    """Every resource, by its chosen id or by its mark, each link by what it leads to.

    A resource that was made twice shows twice, so pictures that are equal pair the ids off.
    """

    def name(identity: str) -> str:
        if _CHOSEN.fullmatch(identity):
            return identity
        found = stored.get(identity)
        return f"the {found['mark']}" if found else "nowhere"

    def link(written: str) -> str:
        parsed = re.fullmatch(r"([A-Z][A-Za-z]+/[A-Za-z0-9.-]+)((?:/_history/.*|#.*)?)", written)
        return name(parsed[1]) + parsed[2] if parsed else written

    return sorted(
        f"{name(identity)}: {json.dumps(replace_links(_plain(resource), link), sort_keys=True)}"
        for identity, resource in stored.items()
    )


def _plain(resource: Body) -> Body:
    return {key: value for key, value in resource.items() if key not in ("id", "meta")}
