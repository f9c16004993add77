"""docs/senders.md tells every scheme, key, policy, dialect and vendor that the code knows."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from integration.core.model import Rights
from integration.senders.model import Quota, SenderPolicy
from integration.senders.proofs.registry import SCHEMES
from integration.senders.proofs.signed_text import parse_template
from integration.senders.vendors import ATHENAHEALTH, HEALTHIE, NEXHEALTH, VENDORS
from tests.house import PROJECT

PAGE = (PROJECT / "docs/senders.md").read_text("utf-8")


def section(title: str) -> str:
    return re.split(r"\n#+ ", PAGE.partition(f"# {title}\n")[2])[0]


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_and_each_of_its_keys_is_told(name: str) -> None:
    told = section(name)
    keys = [field.name for field in fields(SCHEMES[name].keys) if field.name != "secrets"]
    assert told, name
    assert [key for key in keys if f"`{key}`" not in told] == []


@pytest.mark.parametrize(
    ("title", "table"), [("Rights", Rights), ("Quota", Quota), ("Policy", SenderPolicy)]
)
def test_every_key_of_the_other_tables_is_told(title: str, table: type) -> None:
    told = section(title)
    assert [field.name for field in fields(table) if f"`{field.name}`" not in told] == []


def test_every_dialect_has_its_row() -> None:
    dialects = get_args(get_type_hints(SenderPolicy)["dialect"])
    assert len(dialects) > 3
    rows = re.findall(r"^\| `([a-z-]+)` \|", section("Dialects"), re.MULTILINE)
    assert set(rows) == set(dialects)


def test_every_name_of_a_template_is_one() -> None:
    names = section("hmac").partition("Names of `signed`:")[2]
    told = set(re.findall(r"\{([a-z:-]+)\}", names))
    assert len(told) > 8
    for name in told:
        (part,) = parse_template(f"{{{name}}}")
        assert part.name == name


def test_every_vendor_that_the_command_knows_has_its_row() -> None:
    told = section("Vendors").lower()
    for vendor in (*VENDORS, ATHENAHEALTH, HEALTHIE, NEXHEALTH):
        title = vendor.title.split(",")[0].lower()
        assert f"| {title}" in told or title in told, vendor.title
