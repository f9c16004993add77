"""Who sends is known before anything is parsed; whoever is not, gets a 401 that says nothing."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from integration.core.errors import Misconfigured, Rejected, Unauthorized
from integration.fhir.grammar import RESOURCE_TYPES
from integration.intake.identify import Identification, identify
from integration.intake.quotas import Quotas
from integration.journal.store import MemoryJournal
from integration.senders.load import parse_senders
from integration.senders.model import ProvenSender
from integration.senders.proofs.json_web_token import JsonWebToken
from integration.senders.proofs.proof import Proof, Secrets, SignedRequest
from integration.senders.schemes import collect_secrets

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
BASE = "https://relay.example/api/senders"

SENDERS = """
[lab.proof]
scheme = "bearer"
secrets = ["LAB_TOKEN"]
[lab.quota]
requests_per_minute = 2

[hook.proof]
scheme = "hmac"
header = "X-Signature"
secrets = ["HOOK_SECRET", "HOOK_SECRET_OLD"]

[bank.proof]
scheme = "jwt"
issuer = "https://issuer.example"
jwks_url = "https://issuer.example/keys"
audiences = ["https://relay.example"]

[unset.proof]
scheme = "bearer"
secrets = ["UNSET_TOKEN"]

[vault.proof]
scheme = "bearer"
secrets = ["VAULT_TOKEN"]
"""
LEGACY = '[old.proof]\nscheme = "function-key"\n[older.proof]\nscheme = "function-key"\n'

SETTINGS = {
    "LAB_TOKEN": "made-up-token-of-the-lab",
    "HOOK_SECRET": "made-up-secret-of-the-hook",
    "HOOK_SECRET_OLD": "made-up-secret-from-before",
    "VAULT_TOKEN": "@Microsoft.KeyVault(SecretUri=https://v.example/secrets/a)",
}
KEY = ec.generate_private_key(ec.SECP384R1())


def build(text: str | None = SENDERS, **settings: Any) -> Identification:
    senders = None if text is None else parse_senders(text, RESOURCE_TYPES)
    numbers = count()

    async def add_keys(proof: Proof, secrets: Secrets, request: SignedRequest) -> Secrets:
        if not isinstance(proof, JsonWebToken):
            return secrets
        algorithm = jwt.algorithms.ECAlgorithm
        public = algorithm.to_jwk(KEY.public_key(), as_dict=True)
        return Secrets(jwks={"k1": public})

    return Identification(
        senders=senders,
        secrets=collect_secrets((senders or {}).values(), SETTINGS.get, easy_auth=False),
        journal=MemoryJournal(),
        now=lambda: NOW,
        add_keys=add_keys,
        new_token=lambda: f"token {next(numbers)}",
        quotas=Quotas(lambda: 0.0),
        **settings,
    )


def made(
    name: str = "lab", body: bytes = b"{}", method: str = "POST", **headers: str
) -> SignedRequest:
    named = {header.replace("_", "-"): value for header, value in headers.items()}
    return SignedRequest(method=method, url=f"{BASE}/{name}/fhir", headers=named, body=body)


def with_token(token: str = SETTINGS["LAB_TOKEN"], **more: Any) -> SignedRequest:
    return made(authorization=f"Bearer {token}", **more)


def sign(body: bytes, secret: str = SETTINGS["HOOK_SECRET"]) -> str:
    return hmac.digest(secret.encode(), body, hashlib.sha256).hex()


async def find(request: SignedRequest, name: str | None, **given: Any) -> ProvenSender:
    return await identify(build(**given), request, name)


async def refusal(
    request: SignedRequest, name: str | None, caplog: pytest.LogCaptureFixture, **given: Any
) -> tuple[Unauthorized, Mapping[str, Any]]:
    """The error, and the log record that says why."""
    with caplog.at_level(logging.WARNING), pytest.raises(Unauthorized) as caught:
        await find(request, name, **given)
    return caught.value, vars(caplog.records[-1])


async def test_who_proves_itself_is_its_sender() -> None:
    assert (await find(with_token(), "lab")).name == "lab"
    body = b'{"resourceType": "Patient"}'
    for secret in (SETTINGS["HOOK_SECRET"], SETTINGS["HOOK_SECRET_OLD"]):
        request = made("hook", body, x_signature=sign(body, secret))
        assert (await find(request, "hook")).name == "hook"


@pytest.mark.parametrize(
    ("request_", "name", "reason"),
    [
        (made(), "lab", "missing"),
        (with_token("made-up-token-of-another"), "lab", "token"),
        (with_token(), "nobody", "names no sender"),
        (with_token(), "hook", "missing"),
        (made("hook", b"{ }", x_signature=sign(b"{}")), "hook", "signature"),
    ],
)
async def test_who_does_not_gets_a_401_that_tells_nothing_and_the_log_says_why(
    request_: SignedRequest, name: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    error, record = await refusal(request_, name, caplog)
    assert error.status == 401
    assert "WWW-Authenticate" in error.headers
    assert reason not in str(error)
    assert reason in record["reason"]
    assert record["sender"] in (name, None)
    assert "made-up" not in str(record)


async def test_what_stands_in_the_address_reaches_no_log_unless_it_is_a_sender(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, record = await refusal(made(), "Zaphkiel-7731", caplog)
    assert "Zaphkiel-7731" not in str(record)


async def test_a_signature_of_the_body_alone_proves_a_post_to_the_base_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One captured request without a body would delete any resource."""
    request = made("hook", b"", "DELETE", x_signature=sign(b""))
    _, record = await refusal(request, "hook", caplog)
    assert "does not sign the address" in record["reason"]


@pytest.mark.parametrize(
    ("signed", "query", "is_taken"),
    [
        ("{method}{path}{body}", "", True),
        ("{method}{path}{body}", "?identifier=a|1", False),
        ("{method}{path}{query}{body}", "?identifier=a|1", True),
        ("{method}{url}{body}", "?identifier=a|1", True),
        ("{url}{body}", "", False),
    ],
)
async def test_a_signature_without_the_query_proves_no_condition(
    signed: str, query: str, is_taken: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With another query a captured delete would delete another resource."""
    text = f"""
[path.proof]
scheme = "hmac"
header = "X-Signature"
secrets = ["HOOK_SECRET"]
signed = "{signed}"
"""
    url = f"{BASE}/path/fhir/Patient"
    parts = {
        "{method}": "DELETE",
        "{path}": "/api/senders/path/fhir/Patient",
        "{query}": query.removeprefix("?"),
        "{url}": f"{url}{query}",
        "{body}": "",
    }
    for name, value in parts.items():
        signed = signed.replace(name, value)
    headers = {"x-signature": sign(signed.encode())}
    request = SignedRequest(method="DELETE", url=f"{url}{query}", headers=headers, body=b"")
    if is_taken:
        assert (await find(request, "path", text=text)).name == "path"
    else:
        _, record = await refusal(request, "path", caplog, text=text)
        assert "does not sign the address" in record["reason"]


async def test_what_may_be_used_once_is_used_once(caplog: pytest.LogCaptureFixture) -> None:
    claims = {
        "iss": "https://issuer.example",
        "sub": "the-bank",
        "aud": "https://relay.example",
        "exp": NOW + timedelta(minutes=5),
        "jti": "1",
    }
    token = jwt.encode(claims, KEY, algorithm="ES384", headers={"kid": "k1"})
    identification = build()
    request = with_token(token, name="bank")
    assert (await identify(identification, request, "bank")).principal == "the-bank"
    with caplog.at_level(logging.WARNING), pytest.raises(Unauthorized):
        await identify(identification, request, "bank")
    assert "used before" in vars(caplog.records[-1])["reason"]


async def test_a_sender_without_its_secret_is_an_operator_s_matter_and_stops_no_other() -> None:
    identification = build()
    for name, setting in (("unset", "UNSET_TOKEN"), ("vault", "VAULT_TOKEN")):
        with pytest.raises(Misconfigured, match=setting) as caught:
            await identify(identification, with_token(SETTINGS["VAULT_TOKEN"]), name)
        assert "@Microsoft" not in str(caught.value)
    assert (await identify(identification, with_token(), "lab")).name == "lab"


async def test_whoever_sends_too_much_is_told_when_to_go_on() -> None:
    identification = build()
    for _ in range(2):
        await identify(identification, with_token(), "lab")
    with pytest.raises(Rejected) as caught:
        await identify(identification, with_token(), "lab")
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "30"})


@pytest.mark.parametrize("name", ["lab", "hook", "nobody", None])
async def test_what_is_larger_than_a_delivery_is_not_even_verified(name: str | None) -> None:
    """Whoever can reach the address could have the app hash as much as the host takes."""
    with pytest.raises(Rejected) as caught:
        await find(made("hook", b"{" * 11, x_signature="00"), name, max_bytes=10)
    assert caught.value.status == 413


async def test_a_large_body_is_proven_like_a_small_one() -> None:
    body = b" " * 300_000
    assert (await find(made("hook", body, x_signature=sign(body)), "hook")).name == "hook"


async def test_what_is_not_proven_takes_nothing_from_the_quota(
    caplog: pytest.LogCaptureFixture,
) -> None:
    identification = build()
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await identify(identification, made(), "lab")
    assert (await identify(identification, with_token(), "lab")).name == "lab"


# --- holders of a function key -----------------------------------------------------------------


async def test_on_a_laptop_without_a_file_the_gateway_s_header_names_the_sender() -> None:
    request = made(x_sender="north")
    assert (await find(request, None, text=None)).name == "default"
    named = await find(request, None, text=None, sender_header="X-Sender")
    assert (named.name, named.sender.is_listed) == ("north", False)


async def test_in_azure_without_a_file_nobody_is_let_in_and_it_is_said_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error, _ = await refusal(made(), None, caplog, text=None, is_hosted=True)
    assert "write senders.toml" in str(error)


async def test_a_key_is_of_the_only_sender_that_has_one(caplog: pytest.LogCaptureFixture) -> None:
    only = LEGACY.split("[older")[0] + SENDERS
    assert (await find(made(), None, text=only)).name == "old"
    _, record = await refusal(made(), None, caplog, text=SENDERS)
    assert "function key" in record["reason"]


async def test_of_several_with_a_key_the_gateway_names_the_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = {"text": LEGACY + SENDERS, "sender_header": "X-Sender"}
    assert (await find(made(x_sender="older"), None, **given)).name == "older"
    for name in ("lab", "nobody", ""):
        await refusal(made(x_sender=name), None, caplog, **given)


async def test_who_has_a_function_key_has_no_address_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The host lets everybody call it."""
    await refusal(made("old"), "old", caplog, text=LEGACY)


async def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(Rejected):
        await find(made(x_sender="a" * 2000), None, text=None, sender_header="X-Sender")
