"""A sender of files is a table of `senders.toml`, and nobody over HTTP."""

from __future__ import annotations

import pytest

from integration.core.errors import Misconfigured, Unauthorized
from integration.fhir.grammar import RESOURCE_TYPES
from integration.intake.identify import Identification, identify
from integration.intake.quotas import Quotas
from integration.senders.load import parse_senders
from integration.senders.proofs.folder import Folder
from integration.senders.proofs.proof import Proof, Secrets, SignedRequest
from integration.senders.schemes import FOLDER, collect_secrets, get_scheme
from tests.conftest import Route

SENDERS = """
[lab]
proof = {scheme = "folder"}
rights = {types = ["Patient"]}

[web]
proof = {scheme = "function-key"}
"""


async def add_no_keys(proof: Proof, secrets: Secrets, request: SignedRequest) -> Secrets:
    return secrets


def test_a_folder_needs_no_keys_and_no_settings() -> None:
    lab = parse_senders(SENDERS, RESOURCE_TYPES)["lab"]
    assert (lab.proof, get_scheme(lab.proof), lab.rights.types) == (Folder(), FOLDER, ("Patient",))
    secrets = collect_secrets([lab], lambda name: None, easy_auth=False)
    assert secrets.problems == {}


def test_a_folder_with_a_secret_is_a_mistake() -> None:
    with pytest.raises(Misconfigured) as caught:
        parse_senders('[lab]\nproof = {scheme = "folder", secrets = ["LAB_KEY"]}', RESOURCE_TYPES)
    assert "this scheme has none" in str(caught.value)


@pytest.mark.parametrize("name", ["lab", None])
@pytest.mark.parametrize("named", ["lab", ""])
async def test_no_request_is_that_of_a_sender_of_files(
    route: Route, name: str | None, named: str
) -> None:
    identification = Identification(
        senders=parse_senders(SENDERS, RESOURCE_TYPES),
        journal=route.journal,
        now=route.clock,
        add_keys=add_no_keys,
        new_token=lambda: "token",
        quotas=Quotas(lambda: 0),
        sender_header="x-sender",
    )
    base = (
        "https://relay.example/api/senders/lab/fhir" if name else "https://relay.example/api/fhir"
    )
    request = SignedRequest(method="POST", url=base, headers={"x-sender": named}, body=b"{}")
    if name is None and not named:
        assert (await identify(identification, request, name)).name == "web"
        return
    with pytest.raises(Unauthorized):
        await identify(identification, request, name)
