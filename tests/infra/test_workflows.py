"""The workflows of GitHub Actions hold no secret, and run nothing whose version is open."""

from __future__ import annotations

import re

import pytest

from tests.infra.templates import INFRA

WORKFLOWS = sorted((INFRA.parent / ".github" / "workflows").glob("*.yml"))
TEXTS = {file.name: file.read_text("utf-8") for file in WORKFLOWS}


def test_there_are_workflows_to_check_and_to_deploy() -> None:
    assert {"check.yml", "deploy.yml", "deploy-to.yml"} <= TEXTS.keys()


@pytest.mark.parametrize("name", TEXTS)
def test_every_action_is_of_a_version(name: str) -> None:
    used = re.findall(r"uses: (\S+)", TEXTS[name])
    open_ = [one for one in used if not re.search(r"@(v\d+|[0-9a-f]{40})$|^\./", one)]
    assert open_ == []


@pytest.mark.parametrize("name", TEXTS)
def test_no_workflow_knows_a_secret(name: str) -> None:
    assert "secrets." not in TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_a_workflow_may_read_the_repository_and_say_who_it_is_and_no_more(name: str) -> None:
    (granted,) = re.findall(r"^permissions:\n((?:  .+\n)+)", TEXTS[name], re.M)
    allowed = {"contents: read", "id-token: write"} if "deploy" in name else {"contents: read"}
    assert {line.strip() for line in granted.splitlines()} == allowed


def test_an_environment_is_given_what_its_parameters_read() -> None:
    for file in INFRA.glob("*.bicepparam"):
        read = re.findall(r"readEnvironmentVariable\('(\w+)'", file.read_text("utf-8"))
        assert read
        for variable in read:
            assert f"{variable}: ${{{{ vars.{variable} }}}}" in TEXTS["deploy-to.yml"]
