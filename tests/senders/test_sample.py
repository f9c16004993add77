"""senders.sample.toml is a file that the app would read, and it shows every key that there is."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from dataclasses import fields
from typing import get_type_hints

import msgspec
import pytest

from integration.core.model import Rights
from integration.fhir.grammar import RESOURCE_TYPES
from integration.senders.load import read_senders
from integration.senders.model import Quota, SenderPolicy
from integration.senders.proofs.registry import SCHEMES
from integration.senders.schemes import get_scheme
from tests.house import PROJECT

SAMPLE = PROJECT / "senders.sample.toml"
TABLES = {"rights": Rights, "quota": Quota, "policy": SenderPolicy}
SENDERS = read_senders(SAMPLE, RESOURCE_TYPES)


def list_lines() -> list[tuple[str, str, str]]:
    """(table, key, the line without its #) of each key, also of those that are commented out."""
    found, table = [], ""
    for line in SAMPLE.read_text("utf-8").splitlines():
        if header := re.fullmatch(r"\[(.+)\]", line):
            table = header[1]
        elif key := re.match(r"#?([a-z_]+) = ", line):
            found.append((table, key[1], line.removeprefix("#")))
    return found


def get_keys(table: str) -> type:
    """The class of a table's keys."""
    name, _, part = table.partition(".")
    return type(SENDERS[name].proof) if part == "proof" else TABLES[part]


def test_the_sample_shows_every_scheme() -> None:
    assert {get_scheme(sender.proof) for sender in SENDERS.values()} == set(SCHEMES)


def test_the_sample_shows_every_key_of_every_table() -> None:
    shown = defaultdict[type, set[str]](set)
    for table, key, _ in list_lines():
        shown[get_keys(table)].add(key)
    wanted = {scheme.keys for scheme in SCHEMES.values()} | set(TABLES.values())
    missing = {
        (keys.__name__, field.name)
        for keys in wanted
        for field in fields(keys)
        if field.name not in shown[keys]
    }
    # Schemes without secrets refuse the key.
    no_secrets = {
        (SCHEMES[name].keys.__name__, "secrets")
        for name in ("jwt", "entra", "certificate", "function-key", "folder")
    }
    assert missing == no_secrets


@pytest.mark.parametrize(
    ("table", "key", "line"),
    list_lines(),
    ids=[f"{table}.{key}" for table, key, _ in list_lines()],
)
def test_a_key_that_is_commented_out_would_be_taken(table: str, key: str, line: str) -> None:
    if key == "scheme":
        assert tomllib.loads(line)["scheme"] in SCHEMES
        return
    type_ = get_type_hints(get_keys(table), include_extras=True)[key]
    msgspec.convert(tomllib.loads(line)[key], type_)


def test_every_policy_and_right_is_explained() -> None:
    """By a comment on its line, or above it."""
    lines = SAMPLE.read_text("utf-8").splitlines()
    for keys in (Rights, SenderPolicy):
        for field in fields(keys):
            about = [line for line in lines if field.name in line and line.startswith("# ")]
            row = next(n for n, line in enumerate(lines) if re.match(rf"#?{field.name} = ", line))
            assert about or lines[row - 1].startswith("#"), field.name


def test_the_sample_holds_no_secret() -> None:
    names = {name for sender in SENDERS.values() for name in sender.proof.secrets}
    assert len(names) > 6
    assert all(re.fullmatch(r"[A-Z_]+", name) for name in names)
