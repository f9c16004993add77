"""`sender try` and `sender check`, as a person at a terminal runs them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fuzz.proof_seeds import BODY, SECRET, sign_hex
from integration.cli import sender_command
from integration.cli.main import main
from integration.cli.sender_command import parse_time

FILE = """
[acme.proof]
scheme = "hmac"
header = "X-Acme-Signature"
secrets = ["ACME_SECRET"]

[clinic.proof]
scheme = "bearer"
secrets = ["CLINIC_NEW", "CLINIC_OLD"]

[legacy.proof]
scheme = "function-key"
"""
REQUEST = (
    f"X-Acme-Signature: {sign_hex(BODY)}\r\nContent-Type: application/json\r\n\r\n".encode() + BODY
)
NAMES = ("SENDERS", "PUBLIC_URL", "FETCH_FROM", "ACME_SECRET", "CLINIC_NEW", "CLINIC_OLD")


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An app with three senders, and no secret."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "senders.toml").write_text(FILE, "utf-8")
    (tmp_path / "request.http").write_bytes(REQUEST)
    monkeypatch.setenv("SENDERS", str(tmp_path / "senders.toml"))
    monkeypatch.setenv("PUBLIC_URL", "https://relay.example")
    return monkeypatch


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_exit_status_says_whether_it_is_proven(
    env: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "request.http")
    assert main(["sender", "try", file, "--sender", "acme"]) == 1
    assert "proof: NOT PROVEN: the setting ACME_SECRET is not set" in told(capsys)
    env.setenv("ACME_SECRET", SECRET)
    assert main(["sender", "try", file, "--sender", "acme"]) == 0
    lines = told(capsys)
    assert "proof: proven" in lines
    assert "address to give to the vendor: https://relay.example/api/senders/acme/fhir" in lines
    assert SECRET not in "".join(lines)


def test_a_secret_may_stand_in_another_setting(
    env: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("MY_SHELL_ONLY", SECRET)
    file = str(tmp_path / "request.http")
    for more in (["--sender", "acme"], ["--name", "acme"]):
        assert main(["sender", "try", file, "--secret-setting", "MY_SHELL_ONLY", *more]) == 0
        assert "proof: proven" in told(capsys)


def test_a_secret_is_asked_for_where_there_is_a_terminal(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parser = argparse.ArgumentParser()
    sender_command.add_options(parser)
    said: list[str] = []
    chosen = parser.parse_args(["try", str(tmp_path / "request.http"), "--sender", "acme"])
    assert sender_command.run(chosen, said.append, lambda name: SECRET) == 0
    assert sender_command.run(chosen, said.append, lambda name: None) == 1
    assert SECRET not in "".join(said)


def test_the_body_of_a_curl_command_may_be_a_file_beside_it(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env.setenv("ACME_SECRET", SECRET)
    (tmp_path / "body.json").write_bytes(BODY)
    command = (
        f"curl https://relay.example/api/senders/acme/fhir -H 'X-Acme-Signature: {sign_hex(BODY)}' "
        "-H 'Content-Type: application/json' --data-binary @body.json"
    )
    (tmp_path / "request.sh").write_text(command, "utf-8")
    assert main(["sender", "try", str(tmp_path / "request.sh"), "--sender", "acme"]) == 0


def test_what_cannot_be_done_ends_with_2(
    env: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sender", "try", str(tmp_path / "nothing")]) == 2
    assert main(["sender", "try", str(tmp_path / "request.http"), "--sender", "nobody"]) == 2
    (tmp_path / "prose").write_text("this is no request", "utf-8")
    assert main(["sender", "try", str(tmp_path / "prose")]) == 2
    lines = told(capsys)
    assert lines[1] == "senders.toml names no sender nobody: it names acme, clinic, legacy"
    assert lines[2].startswith("line 1 is no header")


def test_a_time_is_in_utc_unless_it_says_otherwise() -> None:
    wanted = datetime(2026, 1, 1, tzinfo=UTC)
    for text in ("2026-01-01", "2026-01-01T00:00:00Z", "1767225600", "2026-01-01T01:00:00+01:00"):
        assert parse_time(text) == wanted
    for text in ("yesterday", "9" * 20):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_time(text)


def test_a_check_tells_each_sender_its_address_and_what_is_wrong(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("CLINIC_NEW", "made-up-token-0123456789")
    assert main(["sender", "check"]) == 1
    rights = "POST, PUT, PATCH of every type; no reads"
    assert told(capsys) == [
        f"acme: https://relay.example/api/senders/acme/fhir; hmac; {rights}; see below",
        "  senders.toml:5: the setting ACME_SECRET is not set",
        f"clinic: https://relay.example/api/senders/clinic/fhir; bearer; {rights}; see below",
        "  senders.toml:9: the setting CLINIC_OLD is not set: the other one serves alone",
        f"legacy: https://relay.example/api/fhir; function-key; {rights}; ok",
    ]
    env.setenv("ACME_SECRET", SECRET)
    env.setenv("CLINIC_OLD", "made-up-token-9876543210")
    assert main(["sender", "check"]) == 0


def test_a_check_tells_every_problem_of_the_file_with_its_line(
    env: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FILE.replace('header = "X-Acme-Signature"', "headr = 1").replace("bearer", "baerer")
    (tmp_path / "senders.toml").write_text(text, "utf-8")
    assert main(["sender", "check"]) == 2
    lines = told(capsys)
    assert [line.partition(": ")[0] for line in lines] == [
        "senders.toml:4",
        "senders.toml:2",
        "senders.toml:8",
    ]


def test_a_base_that_may_not_be_asked_is_told(
    env: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("ACME_SECRET", SECRET)
    text = '[acme.proof]\nscheme = "bearer"\nsecrets = ["ACME_SECRET"]\n[acme.policy]\n'
    text += 'base = "https://fhir.acme.example/r4"\n'
    (tmp_path / "senders.toml").write_text(text, "utf-8")
    assert main(["sender", "check"]) == 1
    assert told(capsys)[1] == (
        "  senders.toml:5: FETCH_FROM does not hold https://fhir.acme.example/r4: add it there"
    )
    env.setenv("FETCH_FROM", "https://fhir.acme.example/r4")
    assert main(["sender", "check"]) == 0


def test_a_check_without_a_file_says_what_to_do(
    env: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "senders.toml").unlink()
    assert main(["sender", "check"]) == 2
    assert "cannot be read" in told(capsys)[0]
