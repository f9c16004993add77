"""Base addresses of servers that the relay may ask. Pure."""

from __future__ import annotations

import re

# Another machine is reached over TLS only. No user, no query and no `..`: URLs are compared with
# these addresses character by character.
_BASE = re.compile(
    r"(?:https://[A-Za-z0-9.\-]+|http://(?:127\.0\.0\.1|localhost))(?::\d{1,5})?"
    r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~\-]+)*"
)


def is_base_address(address: str) -> bool:
    """Whether an address may stand before a path, without a slash at its end."""
    return _BASE.fullmatch(address) is not None
