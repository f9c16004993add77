"""What holds for each scheme: what its proof covers cannot be changed, and nothing odd gets in."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields, replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.proof_seeds import (
    BODY,
    ED25519_PUBLIC,
    NOW,
    OLD_SECRET,
    OLD_WHSEC,
    TOKEN,
    Seed,
    build_request,
    build_seeds,
)
from integration.senders.proofs.proof import Proof, Secrets, SignedRequest, Unproven
from integration.senders.proofs.registry import SCHEMES
from tests.senders.proofs.proving import prove_seed, refuse_seed, set_header

SEEDS = {seed.name: seed for seed in build_seeds()}
each_seed = pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)

HOSTILE = [
    "",
    " ",
    "\x00",
    "a\nb",
    "\ud800",
    "\u0661\u0662",
    "é",
    "=",
    ",",
    "Bearer ",
    "Bearer \ud800",
    "Bearer a.b.c",
    "sha256=",
    "sha256=zz",
    "v1,",
    "v1,@@@@",
    "v1",
    "t=1,v1=",
    ":",
    "::",
    "=" * 100,
    "9" * 5000,
    "A" * 8193,
    "[" * 8000,
    "%" * 100,
    "e30=",
    'Cert="%ff"',
    '("@method");created=1',
    "sig1=()",
]
OTHER_KEYS = {
    "hub": OLD_SECRET,
    "hmac": OLD_SECRET,
    "ed25519": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "bearer": "another-token-0123456789",
    "token-header": "another-token-0123456789",
}


def change_part(request: SignedRequest, part: str) -> SignedRequest:
    """The request with another value of what a seed calls covered."""
    match part.partition(":")[0]:
        case "body":
            return replace(request, body=request.body.replace(b"true", b"True"))
        case "method":
            return replace(request, method="PUT")
        case "url":
            return replace(request, url=request.url.replace("/api/", "/apj/"))
        case _:
            value = request.headers[part]
            last = "2" if value[-1] != "2" else "3"
            return set_header(request, part, value[:-1] + last)


def test_every_scheme_but_the_hosts_own_has_a_request_that_is_proven() -> None:
    assert {seed.scheme for seed in SEEDS.values()} | {"function-key", "folder"} == set(SCHEMES)


@each_seed
def test_a_request_is_proven(seed: Seed) -> None:
    prove_seed(seed)
    assert SCHEMES[seed.scheme].check_secrets(seed.read_table(), seed.secrets) == []


@pytest.mark.parametrize(
    ("seed", "part"),
    [(seed, part) for seed in SEEDS.values() for part in seed.covered],
    ids=[f"{seed.name}-{part}" for seed in SEEDS.values() for part in seed.covered],
)
def test_what_a_proof_covers_cannot_be_changed(seed: Seed, part: str) -> None:
    refuse_seed(seed, change_part(seed.request, part))


@each_seed
def test_a_request_is_refused_without_any_of_its_headers(seed: Seed) -> None:
    for name in seed.request.headers:
        assert refuse_seed(seed, set_header(seed.request, name, None))
    refuse_seed(seed, build_request({}))


@each_seed
def test_a_malformed_header_is_unproven_and_not_quoted(seed: Seed) -> None:
    for name in seed.request.headers:
        for value in HOSTILE:
            why = refuse_seed(seed, set_header(seed.request, name, value))
            assert len(why) < 200
            assert len(value) < 10 or value not in why


@each_seed
def test_a_body_of_any_bytes_does_no_harm(seed: Seed) -> None:
    for body in (b"", b"\xff\xfe", b"[" * 100_000):
        try:
            prove_seed(seed, replace(seed.request, body=body))
        except Unproven:
            assert seed.scheme != "bearer"
        else:
            assert "body" not in seed.covered


@pytest.mark.parametrize(
    "seed", [seed for seed in SEEDS.values() if seed.secrets.values], ids=lambda seed: seed.name
)
def test_either_of_two_secrets_is_taken_during_a_rotation(seed: Seed) -> None:
    other = OTHER_KEYS.get(seed.scheme, "not a key")
    if seed.scheme == "standard-webhooks":
        other = OLD_WHSEC
    table = {**seed.table, "secrets": ["NEW", "OLD"]}
    for values in ((other, *seed.secrets.values), (*seed.secrets.values, other)):
        prove_seed(replace(seed, table=table, secrets=Secrets(values=values)))
    refuse_seed(replace(seed, secrets=Secrets(values=(other,))))


@each_seed
def test_nothing_is_proven_without_the_values_of_the_settings(seed: Seed) -> None:
    empty: list[Secrets] = [Secrets(), Secrets(values=("",), gateway=("",))]
    for secrets in empty:
        refuse_seed(replace(seed, secrets=secrets))


@each_seed
def test_a_time_that_is_not_of_now_is_refused(seed: Seed) -> None:
    """Each that covers a time: by a header, by a field, by the claims, by the certificate."""
    timeless = {"hub", "bearer", "token-header", "ed25519", "entra"}
    if seed.scheme in timeless or seed.name in ("hmac of the body", "hmac of the request"):
        prove_seed(seed, now=NOW.replace(year=2030))
    else:
        for year in (2024, 2030):
            refuse_seed(seed, now=NOW.replace(year=year))


@pytest.mark.parametrize("name", SCHEMES)
def test_every_key_of_a_table_is_explained(name: str) -> None:
    own = [item.name for item in fields(SCHEMES[name].keys) if item.name != "secrets"]
    explained: set[str] = set()
    for kind in SCHEMES[name].keys.__mro__:
        if kind in (Proof, object):
            continue
        body = ast.parse(inspect.getsource(kind)).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                assert isinstance(field.target, ast.Name)
                explained.add(field.target.id)
    assert set(own) == explained


@pytest.mark.parametrize("name", SCHEMES)
def test_a_table_with_a_key_of_another_type_is_refused(name: str) -> None:
    seed = next((seed for seed in SEEDS.values() if seed.scheme == name), None)
    table = dict(seed.table) if seed else {}
    for key in (item.name for item in fields(SCHEMES[name].keys)):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**table, key: 1.5}, SCHEMES[name].keys)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_has_secrets_or_refuses_them(name: str) -> None:
    seed = next((seed for seed in SEEDS.values() if seed.scheme == name), None)
    table = dict(seed.table) if seed else {}
    changed = {**table, "secrets": []} if "secrets" in table else {**table, "secrets": ["A"]}
    with pytest.raises(msgspec.ValidationError, match="secrets"):
        msgspec.convert(changed, SCHEMES[name].keys)
    if "secrets" in table:
        with pytest.raises(msgspec.ValidationError, match="secrets"):
            msgspec.convert({**table, "secrets": ["A", "B", "C"]}, SCHEMES[name].keys)


HEADER_TEXT = st.text(max_size=60) | st.sampled_from(HOSTILE)


@given(
    name=st.sampled_from(sorted(SEEDS)),
    values=st.dictionaries(st.integers(0, 5), HEADER_TEXT, max_size=4),
    body=st.binary(max_size=80) | st.just(BODY),
    method=st.text(max_size=8) | st.just("POST"),
    url=st.text(max_size=40) | st.just("https://relay.example/api/fhir"),
)
def test_whatever_comes_is_unproven_and_raises_nothing_else(
    name: str, values: dict[int, str], body: bytes, method: str, url: str
) -> None:
    seed = SEEDS[name]
    names = sorted(seed.request.headers)
    # Each header is a made-up one: nothing of what is proven is left.
    headers = {header: values.get(number, "x") for number, header in enumerate(names)}
    request = SignedRequest(method=method, url=url, headers=headers, body=body)
    refuse_seed(seed, request)


@given(
    name=st.sampled_from(sorted(SEEDS)),
    position=st.integers(0, 400),
    character=st.characters(),
    number=st.integers(0, 5),
)
def test_a_header_with_one_other_character_is_proven_or_unproven(
    name: str, position: int, character: str, number: int
) -> None:
    seed = SEEDS[name]
    header = sorted(seed.request.headers)[number % len(seed.request.headers)]
    value = seed.request.headers[header]
    place = position % len(value)
    changed = value[:place] + character + value[place + 1 :]
    try:
        found = prove_seed(seed, set_header(seed.request, header, changed))
    except Unproven:
        return
    assert found == prove_seed(seed)
    assert header not in seed.covered or changed.strip(" \t") == value


@given(secret=st.text(max_size=80) | st.sampled_from([TOKEN, OLD_WHSEC, ED25519_PUBLIC]))
def test_what_a_setting_holds_is_a_key_or_a_problem_that_does_not_show_it(secret: str) -> None:
    for seed in SEEDS.values():
        secrets = Secrets(values=(secret,), gateway=(secret,), easy_auth=True)
        problems = SCHEMES[seed.scheme].check_secrets(seed.read_table(), secrets)
        assert len(problems) <= 1
        for problem in problems:
            assert problem.startswith("the setting ")
            assert len(secret) < 8 or secret not in problem
