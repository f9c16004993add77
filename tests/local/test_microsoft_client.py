"""Microsoft's own Python client writes, reads and deletes contacts at the stand-in, over TLS.

https://learn.microsoft.com/power-apps/developer/data-platform/sdk-python/get-started
It knows nothing of this project, so what it is content with is what Dataverse answers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import uvicorn
from azure.core.credentials import AccessToken
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PowerPlatform.Dataverse.client import DataverseClient
from PowerPlatform.Dataverse.core.errors import HttpError
from PowerPlatform.Dataverse.models.filters import col
from PowerPlatform.Dataverse.models.upsert import UpsertItem

from local.dataverse.app import create_app

ADDRESS = "127.0.0.1"
NOBODY = "99999999-9999-4999-8999-999999999999"


class Credential:
    """Gives the same token to whoever asks, and remembers for what it was asked."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes.extend(scopes)
        return AccessToken("token", 4102444800)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the loopback address that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(ADDRESS))]), False)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return public, private


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The stand-in's address, and the certificate to trust."""
    public, private = certificate(tmp_path_factory.mktemp("tls"))
    config = uvicorn.Config(
        create_app(), ssl_certfile=public, ssl_keyfile=private, log_level="error"
    )
    with socket.socket() as listening:
        listening.bind((ADDRESS, 0))
        listening.listen()  # so that a client waits, and nobody needs to ask whether it runs
        port = listening.getsockname()[1]
        serving = uvicorn.Server(config)
        thread = Thread(target=serving.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"https://{ADDRESS}:{port}", public
        serving.should_exit = True
        thread.join()


@pytest.fixture
def credential() -> Credential:
    return Credential()


@pytest.fixture
def client(
    server: tuple[str, Path], credential: Credential, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DataverseClient]:
    url, public = server
    # How the HTTP library below the client is told whom to trust.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(public))
    with DataverseClient(url, credential) as opened:
        yield opened


def refusal(attempt: Callable[[], object]) -> tuple[int, str | None]:
    """The status and Dataverse's code. The error itself would keep its connection open."""
    try:
        attempt()
    except HttpError as error:
        return error.status_code, error.details.get("service_error_code")
    pytest.fail("nothing was refused")


def test_it_asks_for_a_token_for_the_organization(
    client: DataverseClient, credential: Credential, server: tuple[str, Path]
) -> None:
    client.records.create("contact", {"lastname": "Token"})
    assert set(credential.scopes) == {f"{server[0]}/.default"}


def test_it_creates_reads_updates_and_deletes_a_contact(client: DataverseClient) -> None:
    key = client.records.create("contact", {"lastname": "Ahl", "gendercode": 2})
    client.records.update("contact", key, {"firstname": "Anna"})
    found = client.records.retrieve("contact", key, select=["fullname", "gendercode"])
    assert found is not None
    assert (found["fullname"], found["gendercode"]) == ("Anna Ahl", 2)
    client.records.delete("contact", key)
    assert client.records.retrieve("contact", key) is None


def test_it_writes_the_label_of_a_choice_as_its_value(client: DataverseClient) -> None:
    key = client.records.create("contact", {"lastname": "Ahl", "gendercode": "Female"})
    found = client.records.retrieve("contact", key)
    assert found is not None
    assert found["gendercode"] == 2


def test_it_upserts_by_alternate_key_one_and_many(client: DataverseClient) -> None:
    def item(key: str, name: str) -> UpsertItem:
        return UpsertItem({"msemr_azurefhirid": key}, {"lastname": name})

    client.records.upsert("contact", [item("u-1", "one")])
    client.records.upsert("contact", [item("u-1", "changed"), item("u-2", "two")])
    rows = client.records.list("contact", filter="startswith(msemr_azurefhirid,'u-')")
    found = {row["msemr_azurefhirid"]: row["lastname"] for row in rows}
    assert found == {"u-1": "changed", "u-2": "two"}


def test_it_creates_and_updates_many_at_once(client: DataverseClient) -> None:
    keys = client.records.create("contact", [{"lastname": f"many-{n}"} for n in range(3)])
    assert len(set(keys)) == 3
    client.records.update("contact", keys, {"jobtitle": "nurse"})
    rows = client.records.list("contact", filter="jobtitle eq 'nurse'")
    assert {row["contactid"] for row in rows} == set(keys)


def test_it_queries_with_its_own_filters_order_and_pages(client: DataverseClient) -> None:
    for number in range(5):
        client.records.create("contact", {"lastname": f"page-{number}", "numberofchildren": number})
    rows = client.records.list(
        "contact",
        filter=col("lastname").startswith("page-") & (col("numberofchildren") > 0),
        select=["lastname"],
        orderby=["numberofchildren desc"],
        page_size=2,
    )
    assert [row["lastname"] for row in rows] == ["page-4", "page-3", "page-2", "page-1"]
    some = client.records.list("contact", filter=col("lastname").in_(["page-0", "page-3"]))
    assert {row["lastname"] for row in some} == {"page-0", "page-3"}


def test_it_binds_a_lookup(client: DataverseClient) -> None:
    doctor = client.records.create("contact", {"lastname": "Doc"})
    bound = {"msemr_GeneralPractioner@odata.bind": f"/contacts({doctor})"}
    key = client.records.create("contact", {"lastname": "Ahl", **bound})
    found = client.records.retrieve("contact", key, select=["_msemr_generalpractioner_value"])
    assert found is not None
    assert found["_msemr_generalpractioner_value"] == doctor


def test_its_change_set_is_all_or_nothing(client: DataverseClient) -> None:
    batch = client.batch.new()
    with batch.changeset() as changes:
        reference = changes.records.create("contact", {"lastname": "in a change set"})
        changes.records.update("contact", reference, {"firstname": "Made"})
    assert not batch.execute().has_errors
    (row,) = client.records.list("contact", filter="lastname eq 'in a change set'")
    assert row["firstname"] == "Made"

    batch = client.batch.new()
    with batch.changeset() as changes:
        changes.records.create("contact", {"lastname": "never"})
        changes.records.update("contact", NOBODY, {"firstname": "Nobody"})
    assert refusal(batch.execute)[0] == 404
    assert list(client.records.list("contact", filter="lastname eq 'never'")) == []


def test_it_understands_a_refusal(client: DataverseClient) -> None:
    too_long = {"suffix": "x" * 11}
    assert refusal(lambda: client.records.create("contact", too_long)) == (400, "0x80044331")
    nobody = {"lastname": "Nobody"}
    assert refusal(lambda: client.records.update("contact", NOBODY, nobody)) == (404, "0x80040217")


def test_what_the_stand_in_does_not_offer_is_refused_and_not_made_up(
    client: DataverseClient,
) -> None:
    key = client.records.create("contact", {"lastname": "Kept"})
    attempts = (
        lambda: client.query.sql("SELECT TOP 1 lastname FROM contact"),
        lambda: client.records.delete("contact", [key, NOBODY]),
    )
    assert [refusal(attempt)[0] for attempt in attempts] == [501, 501]
    assert client.records.retrieve("contact", key) is not None
