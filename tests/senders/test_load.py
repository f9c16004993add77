"""A file of senders is checked whole: each problem is told with its line and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Misconfigured
from integration.core.model import Rights
from integration.fhir.grammar import RESOURCE_TYPES
from integration.senders.load import parse_senders, read_senders
from integration.senders.model import Quota, Sender, SenderPolicy
from integration.senders.proofs.bearer import Bearer
from integration.senders.proofs.hmac_header import HmacHeader

PROOF = '[lab.proof]\nscheme = "bearer"\nsecrets = ["LAB_TOKEN"]\n'


def parse(text: str) -> dict[str, Sender]:
    return parse_senders(text, RESOURCE_TYPES)


def problems(text: str) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        parse(text)
    return str(caught.value).split("; senders.toml:")


def test_a_sender_needs_a_proof_and_nothing_else() -> None:
    (sender,) = parse(PROOF).values()
    assert (sender.name, sender.proof) == ("lab", Bearer(secrets=("LAB_TOKEN",)))
    assert (sender.rights, sender.quota, sender.policy) == (Rights(), Quota(), SenderPolicy())


def test_by_default_a_sender_reads_and_deletes_nothing() -> None:
    (sender,) = parse(PROOF).values()
    assert not sender.rights.reads
    assert "DELETE" not in sender.rights.methods


def test_every_key_reaches_the_sender() -> None:
    text = f"""
{PROOF}
[lab.rights]
methods = ["POST", "PUT", "DELETE"]
types = ["Patient"]
reads = true
conditional_deletes = true
identifier_systems = ["https://lab.example/mrn"]
id_prefixes = ["lab-"]
[lab.quota]
requests_per_minute = 60
bytes_per_minute = 1000000
[lab.policy]
write_order = "version"
messages = "refuse"
documents = "both"
dangling = "note"
base = "https://lab.example/fhir"
accepted_status = 200
refused_deliveries = "hold"
refused_entries = "hold"
wait = 20
event_numbers = "ignored"
idempotency_header = "X-Message-Id"
idempotency_pointers = ["/id", "/meta/versionId"]
dialect = "medplum"

[other.proof]
scheme = "hmac"
header = "X-Signature"
secrets = ["OTHER_SECRET", "OTHER_SECRET_OLD"]
"""
    lab, other = parse(text).values()
    assert lab.rights == Rights(
        methods=("POST", "PUT", "DELETE"),
        types=("Patient",),
        reads=True,
        conditional_deletes=True,
        identifier_systems=("https://lab.example/mrn",),
        id_prefixes=("lab-",),
    )
    assert lab.quota == Quota(requests_per_minute=60, bytes_per_minute=1000000)
    assert lab.policy == SenderPolicy(
        write_order="version",
        messages="refuse",
        documents="both",
        dangling="note",
        base="https://lab.example/fhir",
        accepted_status=200,
        refused_deliveries="hold",
        refused_entries="hold",
        wait=20,
        event_numbers="ignored",
        idempotency_header="X-Message-Id",
        idempotency_pointers=("/id", "/meta/versionId"),
        dialect="medplum",
    )
    assert other.proof == HmacHeader(
        header="X-Signature", secrets=("OTHER_SECRET", "OTHER_SECRET_OLD")
    )


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("", 1, "names no sender"),
        ("[lab]\n", 1, "lab has no proof"),
        (f"{PROOF}[lab.right]\n", 4, "there is no right of a sender"),
        (f"{PROOF}[lab.rights]\nmethod = 1\n", 5, "there is no method: there are methods"),
        (f'{PROOF}[lab.rights]\nmethods = ["GET"]\n', 5, "one of POST, PUT, PATCH, DELETE"),
        (f'{PROOF}[lab.rights]\ntypes = ["Patinet"]\n', 5, "Patinet"),
        (f'{PROOF}[lab.rights]\nreads = "yes"\n', 5, "bool"),
        (f"{PROOF}[lab.rights]\nhard_deletes = true\n", 5, "refuses hard deletes"),
        (f"{PROOF}[lab.rights]\nconditional_deletes = true\n", 5, "needs DELETE"),
        (f'{PROOF}[lab.rights]\nidentifier_systems = ["a"]\n', 4, "leave out PATCH"),
        (f'{PROOF}[lab.rights]\nid_prefixes = [""]\n', 5, "id_prefixes: an empty text"),
        (f'{PROOF}[lab.rights]\nid_prefixes = ["{"a" * 3000}"]\n', 4, "3000 bytes"),
        (
            f'{PROOF}[lab.rights]\nmethods = ["POST"]\nidentifier_systems = ["a", ""]\n',
            6,
            "an empty text",
        ),
        (
            f'{PROOF}[lab.rights]\nmethods = ["POST"]\n[lab.policy]\ntrust = "uuids"\n',
            7,
            "needs PUT",
        ),
        (f"{PROOF}[lab.quota]\nrequests_per_minute = 0\n", 5, ">= 1"),
        (f"{PROOF}[lab.policy]\nwait = 300\n", 5, "<= 200"),
        (f'{PROOF}[lab.policy]\nbase = "http://lab.example"\n', 5, "https://"),
        (f'{PROOF}[lab.policy]\nidempotency_pointers = ["id"]\n', 5, "/entry/0/fullUrl"),
        (f'{PROOF}[lab.policy]\nidempotency_header = "a b"\n', 5, "name of a header"),
        (
            f'{PROOF}[lab.rights]\nmethods = ["DELETE"]\n[lab.policy]\ndialect = "medplum"\n',
            7,
            "set base",
        ),
        ('[lab.proof]\nscheme = "secret"\n', 2, "scheme must be one of"),
        ('[lab.proof]\nscheme = "bearer"\n', 1, "secrets"),
        ('[lab.proof]\nscheme = "hmac"\nsecrets = ["A"]\n', 1, "header is missing"),
        ('[lab.proof]\nscheme = "hmac"\nsecrets = "A"\nheader = "X"\n', 3, "array"),
        ('[Lab.proof]\nscheme = "bearer"\nsecrets = ["A"]\n', 1, "a-z"),
        ("lab = 1\n", 1, "write a table [lab]"),
    ],
)
def test_a_problem_is_told_with_its_line(text: str, line: int, part: str) -> None:
    (problem,) = problems(text)
    assert problem.removeprefix("senders.toml:").startswith(f"{line}: "), problem
    assert part in problem


def test_all_problems_are_told_at_once() -> None:
    text = f"{PROOF}[lab.rights]\nreads = 1\n[other.policy]\nwait = -1\n"
    assert [
        int(problem.removeprefix("senders.toml:").split(":")[0]) for problem in problems(text)
    ] == [
        *(5, 6, 7),
    ]


def test_one_wrong_sender_lets_no_other_in() -> None:
    with pytest.raises(Misconfigured):
        parse(f"{PROOF}[other]\n")


def test_what_is_no_toml_is_told_with_its_line() -> None:
    with pytest.raises(Misconfigured, match="line 2"):
        parse("[lab.proof]\nscheme = bearer\n")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_senders(tmp_path / "none.toml", RESOURCE_TYPES)


@given(
    st.text(max_size=60),
    st.sampled_from(["", "[lab]\n", "[lab.proof]\n", f"{PROOF}[lab.rights]\n"]),
)
def test_whatever_the_file_holds_is_read_or_refused(text: str, before: str) -> None:
    problem = "senders.toml"
    try:
        parse(before + text)
    except Misconfigured as error:
        problem = str(error)
    assert problem.startswith("senders.toml")


ISSUER = """
[{name}.proof]
scheme = "jwt"
issuer = "https://issuer.example"
jwks_url = "https://issuer.example/keys"
audiences = ["https://relay.example", "api://{audience}"]
{claims}
"""


@pytest.mark.parametrize(
    ("audience", "claims"),
    [
        ("relay", ""),
        ("other", ""),
        ("relay", 'claims = {azp = "a"}'),
        ("relay", 'claims = {azp = "a", role = "b"}'),
    ],
)
def test_one_token_proves_no_two_senders(audience: str, claims: str) -> None:
    first = ISSUER.format(name="bank", audience="relay", claims='claims = {azp = "a"}')
    second = ISSUER.format(name="lab", audience=audience, claims=claims)
    (problem,) = problems(first + second)
    assert "bank could send as lab" in problem


def test_two_senders_of_one_issuer_are_told_apart_by_a_claim_or_an_audience() -> None:
    first = ISSUER.format(name="bank", audience="relay", claims='claims = {azp = "a"}')
    second = ISSUER.format(name="lab", audience="relay", claims='claims = {azp = "b"}')
    assert parse(first + second).keys() == {"bank", "lab"}
    third = second.replace("https://relay.example", "https://lab.example").replace("relay", "lab")
    assert parse(first + third.replace('"b"', '"a"')).keys() == {"bank", "lab"}


@pytest.mark.parametrize(
    "issuer",
    ["https://accounts.google.com", "accounts.google.com", "https://sts.windows.net/1111/"],
)
def test_an_issuer_of_everybody_needs_a_claim(issuer: str) -> None:
    text = ISSUER.format(name="bank", audience="relay", claims="")
    text = text.replace('https://issuer.example"\njwks', f'{issuer}"\njwks')
    (problem,) = problems(text)
    assert "claims: name whose token it must be" in problem
    assert parse(f'{text}claims = {{email = "a@b.example"}}\n')
