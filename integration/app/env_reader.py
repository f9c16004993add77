"""Reads settings from an environment: numbers, choices, lists and addresses."""

from __future__ import annotations

from collections.abc import Mapping

from integration.core.base_addresses import is_base_address
from integration.core.errors import Misconfigured


class EnvReader:
    """Reads variables and collects all that are missing or wrong, for one error in the end."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def read_optional(self, name: str) -> str | None:
        return self.env.get(name, "").strip() or None

    def read_url(self, name: str) -> str:
        value = self.read_optional(name)
        if value is None:
            self.missing.append(name)
        elif not value.startswith(("https://", "http://")):
            self.wrong.append(f"{name} (an address that starts with https://)")
        return (value or "").rstrip("/")

    def read_scope(self, name: str, url: str) -> str | None:
        """Read a token scope. `none`: send no token, for a service on a laptop."""
        value = self.read_optional(name) or f"{url}/.default"
        return None if value.lower() == "none" else value

    def read_sources(self, name: str, scope: str) -> dict[str, str | None]:
        """Read base URLs, and the token scope of each in the same order, or one `none` for all."""
        bases = self.read_addresses(name)
        stated_scopes = self.read_list(scope) or ["none"]
        scopes = [None if scope_.lower() == "none" else scope_ for scope_ in stated_scopes]
        scopes = scopes * len(bases) if scopes == [None] else scopes
        if len(scopes) != len(bases):
            self.wrong.append(f"{scope} (none, or one for each address of {name}, by commas)")
        return dict(zip(bases, scopes, strict=False))

    def read_addresses(self, name: str) -> list[str]:
        bases = self.read_list(name)
        if not all(map(is_base_address, bases)):
            self.wrong.append(f"{name} (addresses that start with https://, by commas)")
        return bases

    def read_list(self, name: str) -> list[str]:
        parts = (self.read_optional(name) or "").split(",")
        return [part.strip().rstrip("/") for part in parts if part.strip()]

    def read_number(
        self, name: str, default: int, maximum: int | None = None, minimum: int = 1
    ) -> int:
        value = self.read_optional(name)
        if value is None:
            return default
        number = int(value) if value.isascii() and value.isdigit() else -1
        if number < minimum or (maximum is not None and number > maximum):
            allowed = f"from {minimum} to {maximum}" if maximum else "above 0"
            self.wrong.append(f"{name} (a whole number {allowed})")
            return default
        return number

    def read_choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Read one of `choices`, of which the first is the default."""
        value = self.read_optional(name) or choices[0]
        if value not in choices:
            self.wrong.append(f"{name} (one of {', '.join(choices)})")
        return value

    def read_by_sender(self, name: str, choices: tuple[str, ...]) -> dict[str, str]:
        """Read `arrival, lab=version`: a choice for all senders, and others for named senders."""
        chosen = {"": choices[0]}
        for part in (self.read_optional(name) or choices[0]).split(","):
            sender, _, value = part.strip().rpartition("=")
            chosen[sender.strip()] = value.strip()
        if set(chosen.values()) - set(choices):
            self.wrong.append(f"{name} (one of {', '.join(choices)}; sender=… for one sender)")
        return chosen

    def check(self) -> None:
        """Raise Misconfigured if anything is missing or wrong."""
        parts = []
        if self.missing:
            parts.append(f"set {', '.join(self.missing)}")
        if self.wrong:
            parts.append(f"correct {', '.join(self.wrong)}")
        if parts:
            raise Misconfigured(f"{'; '.join(parts)} (see local.settings.sample.json)")
