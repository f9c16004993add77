"""Named values, read with all that is missing or wrong told in one message."""

from __future__ import annotations

import re
from collections.abc import Mapping

from integration.core.errors import Misconfigured

# A neighbour beyond this machine is asked over TLS only. No user, no query, no folder tricks:
# what is fetched is compared with it character by character.
_SOURCE = re.compile(
    r"(?:https://[A-Za-z0-9.\-]+|http://(?:127\.0\.0\.1|localhost))(?::\d{1,5})?"
    r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~\-]+)*"
)


class Reader:
    """Collects what is missing or wrong instead of stopping at the first."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def optional(self, name: str) -> str | None:
        return self.env.get(name, "").strip() or None

    def url(self, name: str) -> str:
        value = self.optional(name)
        if value is None:
            self.missing.append(name)
        elif not value.startswith(("https://", "http://")):
            self.wrong.append(f"{name} (an address that starts with https://)")
        return (value or "").rstrip("/")

    def scope(self, name: str, url: str) -> str | None:
        """The token scope; `none` sends no token, for a neighbour on a laptop."""
        value = self.optional(name) or f"{url}/.default"
        return None if value.lower() == "none" else value

    def sources(self, name: str, scope: str) -> dict[str, str | None]:
        """Base addresses, and the token scope of each, in their order; `none` is for all."""
        bases = self.listed(name)
        if not all(_SOURCE.fullmatch(base) for base in bases):
            self.wrong.append(f"{name} (addresses that start with https://, by commas)")
        stated = self.listed(scope) or ["none"]
        scopes = [None if each.lower() == "none" else each for each in stated]
        scopes = scopes * len(bases) if scopes == [None] else scopes
        if len(scopes) != len(bases):
            self.wrong.append(f"{scope} (none, or one for each address of {name}, by commas)")
        return dict(zip(bases, scopes, strict=False))

    def listed(self, name: str) -> list[str]:
        parts = (self.optional(name) or "").split(",")
        return [part.strip().rstrip("/") for part in parts if part.strip()]

    def whole(self, name: str, default: int, most: int | None = None, least: int = 1) -> int:
        value = self.optional(name)
        if value is None:
            return default
        number = int(value) if value.isascii() and value.isdigit() else -1
        if number < least or (most is not None and number > most):
            wanted = f"from {least} to {most}" if most else "above 0"
            self.wrong.append(f"{name} (a whole number {wanted})")
            return default
        return number

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The first choice is the default."""
        value = self.optional(name) or choices[0]
        if value not in choices:
            self.wrong.append(f"{name} (one of {', '.join(choices)})")
        return value

    def by_sender(self, name: str, choices: tuple[str, ...]) -> dict[str, str]:
        """`arrival, lab=version`: a choice for everybody, and others for senders by name."""
        chosen = {"": choices[0]}
        for part in (self.optional(name) or choices[0]).split(","):
            sender, _, value = part.strip().rpartition("=")
            chosen[sender.strip()] = value.strip()
        if set(chosen.values()) - set(choices):
            self.wrong.append(f"{name} (one of {', '.join(choices)}; sender=… for one sender)")
        return chosen

    def check(self) -> None:
        parts = []
        if self.missing:
            parts.append(f"set {', '.join(self.missing)}")
        if self.wrong:
            parts.append(f"correct {', '.join(self.wrong)}")
        if parts:
            raise Misconfigured(f"{'; '.join(parts)} (see local.settings.sample.json)")
