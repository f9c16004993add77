"""Senders are a part of the check: the file, and each sender by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.app.package_documents import SendersText
from integration.app.settings import SenderSettings
from integration.check.report import CheckResult, State
from integration.check.senders import report_senders

TOKEN = "made-up-token-0123456789"
FILE = """
[acme.proof]
scheme = "bearer"
secrets = ["CHECK_ACME"]
[other.proof]
scheme = "bearer"
secrets = ["CHECK_OTHER", "CHECK_OTHER_OLD"]
"""


def build_settings(file: Path | None) -> SenderSettings:
    return SenderSettings(
        senders_file=file,
        sender_header=None,
        site_url=None,
        public_url="https://relay.example",
        easy_auth=False,
    )


def report(settings: SenderSettings) -> list[CheckResult]:
    file = settings.senders_file
    document = None if file is None else SendersText(file.name, file.read_text("utf-8"))
    return report_senders(settings, [], document)


def test_a_sender_without_its_secret_fails_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CHECK_ACME", raising=False)
    monkeypatch.delenv("CHECK_OTHER_OLD", raising=False)
    monkeypatch.setenv("CHECK_OTHER", TOKEN)
    file = tmp_path / "senders.toml"
    file.write_text(FILE, "utf-8")
    acme, other = report(build_settings(file))
    assert (acme.name, acme.state) == ("sender acme", State.FAILED)
    assert acme.detail == "senders.toml:4: the setting CHECK_ACME is not set"
    assert (other.name, other.state) == ("sender other", State.WARNING)
    monkeypatch.setenv("CHECK_ACME", TOKEN)
    acme, _ = report(build_settings(file))
    assert acme.state is State.OK
    assert acme.detail.startswith("https://relay.example/api/senders/acme/fhir; bearer; ")
    assert TOKEN not in acme.detail


def test_a_secret_that_the_vault_did_not_give_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHECK_ACME", "@Microsoft.KeyVault(SecretUri=https://v.example/s)")
    file = tmp_path / "senders.toml"
    file.write_text(FILE.partition("[other")[0], "utf-8")
    (acme,) = report(build_settings(file))
    assert acme.state is State.FAILED
    assert "refers to a key vault that could not be read" in acme.detail


def test_a_file_with_a_mistake_is_one_failure(tmp_path: Path) -> None:
    file = tmp_path / "senders.toml"
    file.write_text(FILE.replace("bearer", "baerer"), "utf-8")
    (result,) = report(build_settings(file))
    assert result.state is State.FAILED
    assert "senders.toml:3: scheme must be one of" in result.detail
    assert "senders.toml:6: scheme must be one of" in result.detail


def test_without_a_file_that_is_a_warning() -> None:
    (result,) = report(build_settings(None))
    assert result.state is State.WARNING
    assert "senders.sample.toml" in result.remedy
