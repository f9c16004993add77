"""What every scheme is: the keys of its table, and a function that verifies a request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """A request as it arrived, before anything of it is parsed.

    `url`: as the sender knows it, with the query as it was sent. Header names are lower case.
    `body`: with its content encoding.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """Something that may be used once: the relay remembers it until it ends by itself."""

    id: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A request that is proven. `message_id`: what the proof covers, and what repeats share."""

    principal: str | None = None  # who, as far as the proof tells: a subject, a thumbprint
    message_id: str | None = None
    once: Once | None = None


class Unproven(Exception):
    """The request is not proven. The text says why, for operators: it holds nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The values of the settings that a table names, the newest first.

    `values` and `gateway`: one for each setting that the table names, "" where it is not set.
    `jwks`: the public keys of an issuer by their ids, as JSON Web Keys (see `senders.jwks`).
    `easy_auth`: whether the platform authenticates (WEBSITE_AUTH_ENABLED), and so takes away what
    callers put into its headers.
    """

    values: tuple[str, ...] = ()
    gateway: tuple[str, ...] = ()
    jwks: Mapping[str, Any] = field(default_factory=dict)
    easy_auth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The keys of a scheme's table; each scheme has a subclass of its own. `secrets` are names of
    app settings. Two at once allow a rotation: either is taken."""

    secrets: tuple[str, ...] = ()
