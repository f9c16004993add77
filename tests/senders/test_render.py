"""A proposed table reads back as it was meant, and rights are told in words."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from integration.core.model import ALL_RIGHTS, Rights
from integration.senders.proofs.certificate import CertificateHeader
from integration.senders.recognize import Candidate
from integration.senders.render import (
    build_tables,
    describe_rights,
    list_secret_names,
    render_tables,
)

KEYS = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
PLAIN = st.one_of(st.text(max_size=20), st.booleans(), st.integers(-(2**53), 2**53))
VALUES = st.one_of(PLAIN, st.lists(st.text(max_size=9), max_size=3), st.dictionaries(KEYS, PLAIN))


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_is_rendered_reads_back(proof: dict[str, Any], policy: dict[str, Any]) -> None:
    text = "\n".join(render_tables("acme", {"proof": proof, "policy": policy}))
    assert tomllib.loads(text) == {"acme": {"proof": proof, "policy": policy}}


def test_secrets_stand_where_the_scheme_has_them() -> None:
    def list_keys(scheme: str, **keys: Any) -> set[str]:
        tables = build_tables(Candidate(scheme=scheme, why="", keys=keys), ("A",), {})
        return {key for key, value in tables["proof"].items() if value == ["A"]}

    assert list_keys("bearer") == {"secrets"}
    assert list_keys("jwt") == list_keys("entra") == list_keys("function-key") == set()
    assert list_keys("certificate") == {"gateway_secrets"}
    assert list_keys("certificate", platform=True) == set()


def test_the_settings_of_a_gateway_are_secrets_too() -> None:
    proof = CertificateHeader(thumbprints=("0" * 64,), gateway_header="X-G", gateway_secrets=("G",))
    assert list_secret_names(proof) == ("G",)


def test_rights_are_told_in_words() -> None:
    assert describe_rights(Rights()) == "POST, PUT, PATCH of every type; no reads"
    assert describe_rights(ALL_RIGHTS) == (
        "POST, PUT, PATCH, DELETE of every type; reads in bundles; deletes by a condition"
    )
    narrow = Rights(
        methods=("PUT",), types=("Patient",), identifier_systems=("urn:a",), id_prefixes=("a-",)
    )
    assert describe_rights(narrow) == (
        "PUT of Patient; no reads; identifiers of urn:a; ids that begin with a-"
    )
