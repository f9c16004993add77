"""Who may do what, and which ways in are open: each role by its scope, each flag by what it becomes."""

from __future__ import annotations

import json
import re

import pytest

from tests.infra.templates import FILES, INFRA, outputs, parsed, resources, said

# (file, role, scope, whose)
APP, TOPIC = "principalId", "topic.identity.principalId"
ROLES = {
    # The host lists and makes containers, and a table is named in the body of a request only.
    ("storage", "Storage Blob Data Owner", "account", APP),
    ("storage", "Storage Table Data Contributor", "account", APP),
    ("storage", "Storage Queue Data Contributor", "queue[i]", APP),
    ("vault", "Key Vault Secrets User", "vault", APP),
    ("fhir-access", "FHIR Data Contributor", "fhir", APP),
    ("watch", "Monitoring Metrics Publisher", "insights", APP),
    ("inbox", "Storage Blob Data Contributor", "folder[i]", APP),
    ("events", "Storage Queue Data Message Sender", "queue", TOPIC),
    ("events", "Storage Blob Data Contributor", "container", TOPIC),
}

# What stands in the file, by "file.resource.property".
PUBLIC = {
    "app.app.publicNetworkAccess": "publicAccess ? Enabled : Disabled",
    "storage.account.publicNetworkAccess": "private ? Disabled : Enabled",
    "storage.account.networkAcls.defaultAction": "private ? Deny : Allow",
    "storage.account.networkAcls.bypass": "AzureServices",
    "storage.account.allowBlobPublicAccess": "False",
    "storage.container.publicAccess": "None",
    "inbox.account.publicNetworkAccess": "closed ? Disabled : Enabled",
    "inbox.account.networkAcls.defaultAction": "limited ? Deny : Allow",
    "inbox.account.networkAcls.bypass": "None",
    "inbox.account.allowBlobPublicAccess": "False",
    "inbox.folder.publicAccess": "None",
    "vault.vault.publicNetworkAccess": "private ? Disabled : Enabled",
    "vault.vault.networkAcls.defaultAction": "private ? Deny : Allow",
    "vault.vault.networkAcls.bypass": "None",
    "fhir.workspace.publicNetworkAccess": "access",
    "fhir.fhir.publicNetworkAccess": "access",
    "fhir.images.publicNetworkAccess": "access",
}

# How a role's name becomes its id: roles.json has each.
OF_A_ROLE = re.compile(r"roles\[([^\]]+)\]")


def names_a_way_in(name: str) -> bool:
    return bool(re.search(r"public(Network)?Access|defaultAction$|bypass$|allowBlobPublic", name))


def flat(value: object, path: str) -> dict[str, str]:
    if isinstance(value, dict) and not {"operator", "function", "loop_type"} & value.keys():
        return {k: v for key, one in value.items() for k, v in flat(one, f"{path}.{key}").items()}
    return {path: said(value)}


def stated() -> dict[str, str]:
    """Every property of every resource."""
    return {
        key: value
        for one in resources()
        for key, value in flat(one.properties, f"{one.file}.{one.name}").items()
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_read(file) -> None:
    assert parsed(file)["parameters"]


def test_every_role_is_given_at_the_narrowest_scope_that_works() -> None:
    given = set()
    for one in resources("Microsoft.Authorization/roleAssignments"):
        (role,) = OF_A_ROLE.findall(said(one.properties["roleDefinitionId"]))
        given.add((one.file, role, said(one.config["scope"]), said(one.properties["principalId"])))
    assert given == ROLES


def test_a_role_is_named_by_what_it_is_given_on_and_to_whom() -> None:
    """Else two deployments into one resource group would take each other's."""
    for one in resources("Microsoft.Authorization/roleAssignments"):
        (role,) = OF_A_ROLE.findall(said(one.properties["roleDefinitionId"]))
        whose = "topic.id" if one.file == "events" else APP
        assert (
            said(one.config["name"])
            == f"guid({said(one.config['scope'])}.id, {whose}, roles[{role}])"
        )


def test_every_role_that_is_known_is_given() -> None:
    known = json.loads((INFRA / "roles.json").read_text("utf-8"))
    assert {role for _, role, _, _ in ROLES} == set(known)


def test_every_way_in_is_closed_where_the_deployment_is_private() -> None:
    assert {key: value for key, value in stated().items() if names_a_way_in(key)} == PUBLIC
    inbox = parsed(INFRA / "modules" / "inbox.bicep")["variables"]
    assert said(inbox["closed"]["value"]) == "and(private, empty(addresses))"
    assert said(inbox["limited"]["value"]) == "or(private, not(empty(addresses)))"
    assert said(parsed(INFRA / "modules" / "fhir.bicep")["variables"]["access"]["value"]) == (
        "private ? Disabled : Enabled"
    )


def test_nothing_is_opened_by_a_key() -> None:
    all_ = stated()
    assert all_["storage.account.allowSharedKeyAccess"] == "False"
    assert all_["inbox.account.allowSharedKeyAccess"] == "False"
    assert all_["watch.insights.DisableLocalAuth"] == "True"
    assert all_["watch.logs.features.disableLocalAuth"] == "True"
    assert all_["vault.vault.enableRbacAuthorization"] == "True"
    assert all_["app.ftp.allow"] == all_["app.scm.allow"] == "False"


def test_the_endpoints_speak_tls_and_nothing_older() -> None:
    all_ = stated()
    assert all_["app.app.httpsOnly"] == "True"
    assert all_["app.app.siteConfig.minTlsVersion"] == "1.2"
    assert all_["app.app.siteConfig.scmMinTlsVersion"] == "1.2"
    assert all_["app.app.siteConfig.ftpsState"] == "Disabled"
    for account in ("storage.account", "inbox.account"):
        assert all_[f"{account}.minimumTlsVersion"] == "TLS1_2"
        assert all_[f"{account}.supportsHttpsTrafficOnly"] == "True"


def test_no_web_page_may_call_the_endpoints_unless_one_is_named() -> None:
    assert stated()["app.app.siteConfig.cors.allowedOrigins"] == "allowedOrigins"
    assert parsed(INFRA / "main.bicep")["parameters"]["allowedOrigins"]["default"] == []


def test_easy_auth_checks_the_tokens_that_come_and_leaves_the_rest_to_the_app() -> None:
    """Most senders have no token of Entra: they prove themselves as senders.toml says."""
    all_ = stated()
    assert all_["app.auth.platform.enabled"] == "not(empty(authClientId))"
    assert all_["app.auth.globalValidation.requireAuthentication"] == "False"
    assert all_["app.auth.globalValidation.unauthenticatedClientAction"] == "AllowAnonymous"
    assert all_["app.auth.login.tokenStore.enabled"] == "False"


SECRET = re.compile(r"list[A-Z]\w*\(|key\b|keys\b|secret|password|connectionstring|sas\b", re.I)


def test_no_output_is_a_secret() -> None:
    told = [(file, name, text) for file, name, text in outputs() if SECRET.search(f"{name} {text}")]
    # An address: whoever sends there proves who it is, since local authentication is off.
    assert told == [("watch", "insightsAddress", "insights.properties.ConnectionString")]


def test_no_file_asks_for_a_key() -> None:
    for file in FILES:
        assert not re.search(r"\blist[A-Z]\w*\(|getSecret|@secure", file.read_text("utf-8")), file
