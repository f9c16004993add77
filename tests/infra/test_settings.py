"""Settings, the sample file and the deployment name the same; storage has what the app opens."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator

import pytest

from integration import journal
from integration.app import settings
from integration.intake import inbox
from integration.journal import azure_blobs, inbox_files
from integration.queues import names
from tests.app.settings_parts import OF_THE_HOST, REQUIRED, VALUES, Recording
from tests.infra.templates import FILES, INFRA, PARSER, module, parsed, resources, said

DEFAULTS: dict[str, str] = json.loads((INFRA / "settings.json").read_text("utf-8"))
DECIDED: dict[str, object] = module("app")["decided"]
PARAMETERS = sorted(INFRA.glob("*.bicepparam"))

# How storage and telemetry are reached by identity, where the sample has a connection string.
OF_THE_C_LIBRARY = {"MALLOC_MMAP_THRESHOLD_"}
BY_IDENTITY = {
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__clientId",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
}

# https://learn.microsoft.com/azure/azure-functions/functions-app-settings#flex-consumption-plan-deprecations
FORBIDDEN = {
    "ENABLE_ORYX_BUILD",
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_WORKER_RUNTIME",
    "FUNCTIONS_WORKER_RUNTIME_VERSION",
    "FUNCTIONS_MAX_HTTP_CONCURRENCY",
    "FUNCTIONS_WORKER_PROCESS_COUNT",
    "FUNCTIONS_WORKER_DYNAMIC_CONCURRENCY_ENABLED",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
    "WEBSITE_CONTENTOVERVNET",
    "WEBSITE_CONTENTSHARE",
    "WEBSITE_DNS_SERVER",
    "WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT",
    "WEBSITE_NODE_DEFAULT_VERSION",
    "WEBSITE_RUN_FROM_PACKAGE",
    "WEBSITE_SKIP_CONTENTSHARE_VALIDATION",
    "WEBSITE_VNET_ROUTE_ALL",
    "AzureWebJobsStorage",
    "AzureWebJobsDashboard",
}
NEEDLESS = {"linuxFxVersion", "vnetRouteAllEnabled", "alwaysOn", "functionAppScaleLimit"}


def variable(file: str, name: str) -> list[str]:
    return parsed(INFRA / f"{file}.bicep")["variables"][name]["value"]


def chosen(parameters: str) -> Iterator[str]:
    """Names of the settings that a file of parameters states."""
    text = (INFRA / parameters).read_text("utf-8")
    # The parser knows templates only; a parameter with a value reads like a variable.
    as_variables = text.replace("using 'main.bicep'", "").replace("\nparam ", "\nvar ")
    yield from PARSER.parse(text=as_variables)["variables"]["settings"]["value"]


def test_the_deployment_sets_every_setting_and_nothing_else() -> None:
    assert not DEFAULTS.keys() & DECIDED.keys()
    named = (DEFAULTS.keys() | DECIDED.keys()) - BY_IDENTITY - OF_THE_C_LIBRARY
    assert named == VALUES.keys() - OF_THE_HOST - {"AzureWebJobsStorage"}


def test_the_app_reads_every_setting_of_the_deployment() -> None:
    env = Recording(REQUIRED)
    settings.read_settings(env)
    settings.get_telemetry_destination(env)
    settings.get_housekeeping_schedule(env)
    settings.get_edits_schedule_text(env)
    settings.get_events_queue_binding(env)
    read_by_others = BY_IDENTITY | OF_THE_C_LIBRARY
    assert (DEFAULTS.keys() | DECIDED.keys()) - read_by_others <= set(env.asked)


def test_the_deployment_states_the_defaults_of_the_app() -> None:
    assert settings.read_settings({**DEFAULTS, **REQUIRED}) == settings.read_settings(REQUIRED)


def test_the_app_works_by_identity_with_what_the_deployment_decides() -> None:
    text = {name: said(value) for name, value in DECIDED.items()}
    text |= {"INBOX_URL": "https://relayin.example.org"}
    text |= {"FHIR_URL": REQUIRED["FHIR_URL"], "DATAVERSE_URL": REQUIRED["DATAVERSE_URL"]}
    read = settings.read_settings({**DEFAULTS, **text})
    assert read.storage.connection is None
    assert read.client_id == "identity.properties.clientId"


@pytest.mark.parametrize("file", [file.name for file in PARAMETERS])
def test_a_file_of_parameters_names_settings_that_are_there(file: str) -> None:
    assert set(chosen(file)) <= DEFAULTS.keys()


def test_flex_consumption_is_given_no_setting_that_it_refuses() -> None:
    names = DEFAULTS.keys() | DECIDED.keys()
    assert not names & FORBIDDEN
    (app,) = resources("Microsoft.Web/sites")
    assert not (app.properties.keys() | app.properties["siteConfig"].keys()) & NEEDLESS


def test_no_setting_is_a_secret() -> None:
    """The one connection string is an address: local authentication is off (see test_access)."""
    for name, value in DECIDED.items():
        assert "list" not in said(value)
        assert "CONNECTION_STRING" not in name or said(value) == "watch.outputs.insightsAddress"
    assert not [name for name in DEFAULTS if "KEY" in name or "SECRET" in name]


def test_secrets_of_senders_are_references_to_the_vault_and_survive_a_deployment() -> None:
    """A deployment replaces all settings of the app, so it states these, too."""
    (app,) = resources("Microsoft.Web/sites")
    assert said(app.properties["siteConfig"]["appSettings"]) == "concat(stated, references)"
    text = (INFRA / "modules/app.bicep").read_text("utf-8")
    assert "var references = [for one in items(senderSecrets): {" in text
    assert "'@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${one.value})'" in text
    assert "senderSecrets: senderSecrets" in (INFRA / "main.bicep").read_text("utf-8")


def test_every_container_queue_and_table_is_there_before_the_app_is() -> None:
    modules = [
        importlib.import_module(f"integration.journal.{one.name}")
        for one in pkgutil.iter_modules(journal.__path__)
    ]
    tables = {one.TABLE for one in modules if hasattr(one, "TABLE")}
    tables |= {table for one in modules for table in getattr(one, "TABLES", ())}
    assert set(variable("modules/storage", "tables")) == tables

    assert azure_blobs.CONTAINER in variable("modules/storage", "containers")
    assert "deployments" in variable("modules/storage", "containers")

    queues = [name for one in names.APP_QUEUES for name in (one, f"{one}-poison")]
    events = ["eventsQueue", "${eventsQueue}-poison"]
    assert variable("modules/storage", "queues") == [*queues, *events]
    assert said(variable("main", "eventsQueue")) == settings.get_events_queue_binding({})


def test_events_go_to_the_queue_of_the_app_and_wait_there_without_an_end() -> None:
    (one,) = resources("Microsoft.EventGrid/systemTopics/eventSubscriptions")
    delivery = one.properties["deliveryWithResourceIdentity"]
    assert delivery["identity"]["type"] == "SystemAssigned"
    to = delivery["destination"]["properties"]
    assert said(to["queueName"]) == "queueName"
    assert said(to["queueMessageTimeToLiveInSeconds"]) == "minus(1)"
    assert said(module("events")["queueName"]) == said(DECIDED["FHIR_EVENTS_QUEUE"])
    dead = one.properties["deadLetterWithResourceIdentity"]["deadLetterDestination"]["properties"]
    assert said(dead["blobContainerName"]) == "deadLetterContainer"
    assert module("events")["deadLetterContainer"] in variable("modules/storage", "containers")


def test_files_of_the_inbox_are_told_of_when_they_are_whole() -> None:
    events = module("inboxEvents")
    assert said(events["queueName"]) == "inboxQueue"
    assert said(variable("main", "inboxQueue")) == names.INBOX_QUEUE
    assert set(events["eventTypes"]) == set(inbox.EVENT_TYPES)
    (condition,) = events["conditions"]
    assert set(condition["values"]) == set(inbox.UNFINISHED_CALLS)
    assert said(events["subjectBeginsWith"]) == ("/blobServices/default/containers/${inbox}/blobs/")
    assert variable("modules/inbox", "containers") == ["container", inbox_files.ANSWERS]
    assert said(DECIDED["INBOX"]) == said(module("folders")["container"]) == "inbox"
    assert parsed(FILES[0])["parameters"]["inbox"]["default"] == ""


def test_answers_are_deleted_by_their_age_and_files_are_not() -> None:
    policies = resources("Microsoft.Storage/storageAccounts/managementPolicies")
    (policy,) = [one for one in policies if one.file == "inbox"]
    (rule,) = policy.properties["policy"]["rules"]
    assert rule["definition"]["filters"]["prefixMatch"] == [f"{inbox_files.ANSWERS}/"]


def test_what_is_kept_is_cooled_when_housekeeping_would_have_forgotten_it() -> None:
    """It is deleted by its age only where an operator says so: a parked delivery is kept."""
    assert "RETENTION_DAYS" in said(module("storage")["retentionDays"])
    assert parsed(FILES[0])["parameters"]["keptAtMostDays"]["default"] == 0
    policies = resources("Microsoft.Storage/storageAccounts/managementPolicies")
    (policy,) = [one for one in policies if one.file == "storage"]
    rules = said(policy.properties["policy"]["rules"])
    assert "keptAtMostDays, 0 ? [cooler, undelivered, ended] : [cooler, undelivered]" in rules
    cooler = variable("modules/storage", "cooler")["definition"]
    assert cooler["filters"]["prefixMatch"] == [f"{azure_blobs.CONTAINER}/"]
    after = cooler["actions"]["baseBlob"]
    assert after == {"tierToCool": {"daysAfterModificationGreaterThan": "retentionDays"}}
