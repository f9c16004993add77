"""`python -m integration provision` makes what an organisation lacks, once, and tells all of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.core.http import Upstream, build_limiter
from integration.dataverse.client import Dataverse
from integration.mapping import files, load
from integration.mapping.model import Route
from integration.provision import command
from local.dataverse.app import create_app
from local.dataverse.faults import Fault, Gate, parse_fault
from tests.provision.observation_map import OBSERVATION

KEY = "feed-key-Zaphkiel"
IDENTITY = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e77"
FEED = "https://app.example.org/api/odata/"

SETTINGS = {"MAP_SET": "plain", "MAP_PREFIX": "abc", "AZURE_CLIENT_ID": IDENTITY}
NAMES = [*SETTINGS, "FEED_URL", "FEED_KEY", "MAPS", "MAPS_ENABLED", "MIRROR_TO", "ON_DELETE"]
NAMES += ["BYPASS_LOGIC", "IMPERSONATE", "AzureWebJobsStorage__clientId", "WRITEBACK"]


class Organisation:
    """The stand-in, and the command run on it."""

    def __init__(self, app: Gate) -> None:
        self.app = app
        self.received: list[tuple[str, str]] = []
        self.prompts: list[str] = []

    def run(self, *options: str) -> tuple[int, list[str]]:
        parser = argparse.ArgumentParser()
        command.add_options(parser)
        said: list[str] = []
        chosen = parser.parse_args(options)
        return command.run(chosen, said.append, self._opened, self._prompt), said

    def get(self, path: str) -> Any:
        async def asked() -> httpx.Response:
            async with self._http() as http:
                return await http.get(f"http://dataverse/api/data/v9.2/{path}")

        answer = asyncio.run(asked())
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, method: str, path: str, body: Any = None) -> None:
        """Send to the stand-in, also beside its Web API."""

        async def sent() -> httpx.Response:
            async with self._http() as http:
                return await http.request(method, f"http://dataverse/{path}", json=body)

        answer = asyncio.run(sent())
        assert answer.status_code < 300, answer.text

    def _prompt(self, text: str) -> str:
        self.prompts.append(text)
        return KEY

    def _http(self) -> httpx.AsyncClient:
        async def note(request: httpx.Request) -> None:
            self.received.append((request.method, request.url.path))

        transport = httpx.ASGITransport(app=self.app)
        return httpx.AsyncClient(transport=transport, event_hooks={"request": [note]})

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Dataverse]:
        async with self._http() as http:
            yield Dataverse(Upstream("Dataverse", "http://dataverse", http, build_limiter(4)))

    @property
    def changes(self) -> list[tuple[str, str]]:
        return [each for each in self.received if each[0] != "GET"]


@pytest.fixture
def organisation() -> Iterator[Organisation]:
    app = create_app()
    yield Organisation(app)
    app.close()


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FEED_URL", FEED)
    monkeypatch.setenv("FEED_KEY", KEY)
    # One virtual table is as good as twenty, but for one test.
    for path in (files.MAPS_FOLDER / files.CLINICAL_SET).glob("*.toml"):
        (tmp_path / path.name).write_text(f"enabled = false\n{path.read_text('utf-8')}", "utf-8")
    (tmp_path / "observation.toml").write_text(OBSERVATION, "utf-8")
    monkeypatch.setenv("MAPS", str(tmp_path))
    return monkeypatch


def fault(**wish: Any) -> Fault:
    return parse_fault({"kind": "status", **wish})


def made(said: list[str]) -> list[str]:
    return [line.removeprefix("made:").strip() for line in said if line.startswith("made:")]


def counts(said: list[str]) -> dict[str, int]:
    return {name: int(n) for name, n in re.findall(r"([\w-]+)=(\d+)", said[-1])}


def test_an_organisation_that_has_nothing_gets_everything(organisation: Organisation) -> None:
    status, said = organisation.run()
    assert status == 0, said
    assert counts(said)["exists"] == 0
    pieces = " | ".join(made(said))
    for piece in (
        "publisher with the prefix abc",
        "solution FhirRelay",
        "column abc_fhirid of contact",
        "alternate key abc_fhir_key of contact",
        "data source FHIR relay",
        "virtual table abc_ve_observation",
        "external name msemr_observationid of the primary key of abc_ve_observation",
        "column abc_status of abc_ve_observation",
        "lookup abc_subjectpatient of abc_ve_observation, to contact",
        "external events of abc_ve_observation",
        "role FHIR relay",
        f"application user of {IDENTITY}",
        "privileges of role FHIR relay",
        "role FHIR relay of the application user",
        "publication of the changes",
    ):
        assert piece in pieces


def test_a_second_run_finds_everything_and_changes_nothing(organisation: Organisation) -> None:
    _, first = organisation.run()
    organisation.received.clear()
    status, again = organisation.run()
    assert organisation.changes == []
    assert (status, counts(again)["made"]) == (0, 0)
    # The publication is not something that is there.
    assert counts(again)["exists"] == counts(first)["made"] - 1


def test_a_run_that_was_broken_off_is_gone_on_with(organisation: Organisation) -> None:
    organisation.app.faults.append(fault(method="POST", path="RelationshipDefinitions", status=400))
    status, said = organisation.run()
    assert status == 2
    assert said[-1].startswith("stopped: lookup abc_subjectpatient of abc_ve_observation")
    _, went_on = organisation.run()
    assert counts(went_on)["made"] > 0
    organisation.received.clear()
    organisation.run()
    assert organisation.changes == []


def test_a_dry_run_tells_every_request_and_sends_none(organisation: Organisation) -> None:
    status, told = organisation.run("--dry-run")
    assert organisation.changes == []
    assert status == 0
    requests = [line.strip() for line in told if re.match(r"  (POST|PUT|PATCH) ", line)]
    organisation.received.clear()
    _, said = organisation.run()
    assert len(requests) == len(organisation.changes) == counts(told)["would-make"]
    # What needs an id that is not there yet has a word in its place.
    assert [re.sub(r"[<(].*", "", each) for each in requests] == [
        re.sub(r"[<(].*", "", f"{method} http://dataverse{path}")
        for method, path in organisation.changes
    ]
    assert any("<the id of the data source>" in line for line in told)
    assert counts(said)["made"] == counts(told)["would-make"]


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_the_key_reaches_the_data_source_and_is_told_nowhere(
    organisation: Organisation, options: tuple[str, ...]
) -> None:
    _, said = organisation.run(*options)
    assert not [line for line in said if KEY in line]
    sources = organisation.get("msdyn_odatav4ds")["value"]
    if options:
        assert any('"msdyn_parameter1value": "***"' in line for line in said)
        assert sources == []
    else:
        (source,) = sources
        assert source["msdyn_parameter1name"] == "x-functions-key"
        assert source["msdyn_parameter1value"] == KEY
        assert source["msdyn_isparameter1header"] is True
        assert (source["msdyn_uri"], source["msdyn_timeout"]) == (FEED, 30)


def test_what_dataverse_says_against_the_key_is_told_without_it(
    organisation: Organisation, env: pytest.MonkeyPatch
) -> None:
    too_long = "k" * 2000
    env.setenv("FEED_KEY", too_long)
    status, said = organisation.run()
    assert status == 2
    assert "msdyn_parameter1value" in said[-1]
    assert too_long not in said[-1]


def test_a_key_that_no_setting_says_is_asked_for_but_not_for_a_dry_run(
    organisation: Organisation, env: pytest.MonkeyPatch
) -> None:
    env.delenv("FEED_KEY")
    organisation.run("--dry-run")
    assert organisation.prompts == []
    organisation.run()
    assert len(organisation.prompts) == 1
    (source,) = organisation.get("msdyn_odatav4ds")["value"]
    assert source["msdyn_parameter1value"] == KEY


def test_another_key_and_another_address_are_brought_to_the_data_source(
    organisation: Organisation, env: pytest.MonkeyPatch
) -> None:
    organisation.run()
    env.setenv("FEED_KEY", "another-key")
    _, said = organisation.run(
        "--feed", "https://other.example.org/api/odata", "--paging", "client"
    )
    (line,) = made(said)
    assert line.startswith("data source FHIR relay: msdyn_uri, msdyn_pagination")
    (source,) = organisation.get("msdyn_odatav4ds")["value"]
    assert source["msdyn_uri"] == "https://other.example.org/api/odata/"
    assert source["msdyn_parameter1value"] == "another-key"
    assert source["msdyn_paginationtype"] == 0


def test_every_shipped_map_that_may_be_virtual_has_a_virtual_table(
    organisation: Organisation, env: pytest.MonkeyPatch
) -> None:
    env.delenv("MAPS")
    status, said = organisation.run()
    assert status == 0, said[-1]
    shown = [
        each
        for each in load.load_shipped_maps("plain", "abc").values()
        if Route.VIRTUAL in each.routes
    ]
    tables = [line for line in made(said) if line.startswith("virtual table ")]
    assert len(tables) == len(shown) >= 20


def test_a_virtual_table_is_what_the_feed_shows(organisation: Organisation) -> None:
    organisation.run()
    table = organisation.get("EntityDefinitions(LogicalName='abc_ve_observation')")
    assert table["TableType"] == "Virtual"
    assert table["EntitySetName"] == "abc_ve_observations"
    assert table["ExternalName"] == "msemr_observation"
    assert table["ExternalCollectionName"] == "msemr_observations"
    assert table["PrimaryNameAttribute"] == "abc_description"
    path = "EntityDefinitions(LogicalName='abc_ve_observation')/Attributes"
    columns = {each["LogicalName"]: each for each in organisation.get(path)["value"]}
    external = {name: each["ExternalName"] for name, each in columns.items()}
    assert external["abc_ve_observationid"] == "msemr_observationid"
    assert external["abc_status"] == "msemr_status"
    assert external["abc_subjectpatient"] == "_msemr_subjectpatient_value"
    assert columns["abc_day"]["DateTimeBehavior"]["Value"] == "TimeZoneIndependent"
    assert columns["abc_issued"]["DateTimeBehavior"]["Value"] == "UserLocal"
    assert columns["abc_comment"]["MaxLength"] == 4000


def test_columns_and_keys_that_the_mirror_needs_are_added_to_contact(
    organisation: Organisation,
) -> None:
    organisation.run()
    path = "EntityDefinitions(LogicalName='contact')/Attributes"
    there = {each["LogicalName"] for each in organisation.get(path)["value"]}
    assert {"abc_fhirid", "abc_fhirversion", "abc_fhirupdated", "abc_fhirtype"} <= there
    assert {"abc_recordnumber", "abc_deceaseddate"} <= there
    keys = organisation.get("EntityDefinitions(LogicalName='contact')/Keys")["value"]
    assert ["abc_fhirid", "abc_fhirtype"] in [each["KeyAttributes"] for each in keys]


def test_microsofts_columns_get_a_key_only_where_that_is_wanted(
    organisation: Organisation, env: pytest.MonkeyPatch
) -> None:
    env.setenv("MAP_SET", "healthcare")
    _, said = organisation.run("--dry-run")
    assert not [line for line in said if "alternate key" in line]
    assert not [line for line in said if "of contact" in line and "column" in line]
    _, said = organisation.run("--dry-run", "--keys")
    key = (
        "would make:  alternate key abc_fhir_key of contact (msemr_azurefhirid, msemr_contacttype)"
    )
    assert key in said


def test_a_column_that_no_file_describes_is_for_a_person(
    organisation: Organisation, tmp_path: Path
) -> None:
    more = 'adds_to = "Patient"\n\n[[attribute]]\ncolumn = "abc_eyes"\npath = "gender"\n'
    (tmp_path / "eyes.toml").write_text(more, "utf-8")
    status, said = organisation.run()
    assert status == 1
    assert any(line.startswith("to do:  column abc_eyes of contact is missing") for line in said)


def test_nothing_is_changed_that_somebody_has_made_otherwise(
    organisation: Organisation, tmp_path: Path
) -> None:
    organisation.run()
    changed = OBSERVATION.replace('type = "decimal"', 'type = "integer"')
    (tmp_path / "observation.toml").write_text(changed, "utf-8")
    organisation.received.clear()
    status, said = organisation.run()
    assert (status, organisation.changes) == (1, [])
    expected = "to do:  column abc_value of abc_ve_observation is of type Decimal, not Integer"
    assert expected in said


def test_a_new_column_of_a_map_is_added(organisation: Organisation, tmp_path: Path) -> None:
    organisation.run()
    more = '\n[[attribute]]\ncolumn = "msemr_method"\npath = "method.text"\n'
    (tmp_path / "observation.toml").write_text(OBSERVATION + more, "utf-8")
    _, said = organisation.run()
    assert made(said) == [
        "column abc_method of abc_ve_observation",
        "publication of the changes",
    ]


def test_the_role_grants_what_the_mirror_and_the_events_need_and_no_more(
    organisation: Organisation,
) -> None:
    organisation.run()
    (role,) = organisation.get("roles?$filter=name eq 'FHIR relay'")["value"]
    answer = organisation.get(f"RetrieveRolePrivilegesRole(RoleId={role['roleid']})")
    names = {row["privilegeid"]: row["name"] for row in organisation.get("privileges")["value"]}
    granted = {names[each["PrivilegeId"]] for each in answer["RolePrivileges"]}
    assert {each["Depth"] for each in answer["RolePrivileges"]} == {"Global"}
    assert {name for name in granted if "ontact" in name} == {
        f"prv{verb}Contact" for verb in ("Create", "Read", "Write", "Append", "AppendTo")
    }
    assert {name for name in granted if "observation" in name} == {"prvReadabc_ve_observation"}
    assert {name for name in granted if name.startswith("prvDelete")} == set()


def test_what_settings_need_besides_is_granted_with_them(
    organisation: Organisation, env: pytest.MonkeyPatch
) -> None:
    env.setenv("ON_DELETE", "delete")
    env.setenv("BYPASS_LOGIC", "CustomSync")
    organisation.run()
    (role,) = organisation.get("roles?$filter=name eq 'FHIR relay'")["value"]
    answer = organisation.get(f"RetrieveRolePrivilegesRole(RoleId={role['roleid']})")
    names = {row["privilegeid"]: row["name"] for row in organisation.get("privileges")["value"]}
    granted = {names[each["PrivilegeId"]] for each in answer["RolePrivileges"]}
    assert {"prvDeleteContact", "prvBypassCustomBusinessLogic"} <= granted


def test_without_an_address_of_the_feed_there_are_no_virtual_tables(
    organisation: Organisation, env: pytest.MonkeyPatch
) -> None:
    env.delenv("FEED_URL")
    status, said = organisation.run()
    assert status == 1
    assert any(line.startswith("to do:  virtual tables were not added") for line in said)
    assert not [line for line in made(said) if "virtual" in line or "data source" in line]
    assert any("column abc_fhirid of contact" in line for line in made(said))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("MAP_PREFIX", "", "MAP_PREFIX"),
        ("MAP_PREFIX", "mscrmx", "MAP_PREFIX"),
        ("MAP_PREFIX", "Toolong99", "MAP_PREFIX"),
        ("FEED_URL", "http://app.example.org/api/odata", "https://"),
        ("AZURE_CLIENT_ID", "relay", "GUID"),
    ],
)
def test_a_setting_that_is_wrong_ends_it_before_anything_is_asked(
    organisation: Organisation, env: pytest.MonkeyPatch, setting: str, value: str, words: str
) -> None:
    env.setenv(setting, value)
    status, said = organisation.run()
    assert (status, organisation.received) == (2, [])
    assert words in said[-1]


def test_a_solution_of_another_publisher_is_not_written_into(organisation: Organisation) -> None:
    organisation.run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAP_PREFIX", "xyz")
        status, said = organisation.run()
    assert status == 2
    assert "solution FhirRelay is of another publisher" in said[-1]


def test_an_organisation_whose_provider_is_another_is_told_what_was_expected(
    organisation: Organisation,
) -> None:
    # As if a later version of the provider had renamed its columns.
    organisation.app.faults.append(fault(method="GET", path="msdyn_odatav4ds", status=404, next=1))
    status, said = organisation.run()
    assert status == 2
    assert "OData v4 data provider (table msdyn_odatav4ds)" in said[-1]


def test_a_dry_run_prints_bodies_that_are_json(organisation: Organisation) -> None:
    _, told = organisation.run("--dry-run")
    text = "\n".join(line[2:] for line in told if line.startswith("  "))
    bodies = re.split(r"^(?:POST|PUT|PATCH) .+\n(?:MSCRM\.\S+ \S+\n)?", text, flags=re.M)[1:]
    assert len([json.loads(body) for body in bodies]) == counts(told)["would-make"]


# -- what organisations differ in ------------------------------------------------------------------

ENCOUNTER = """
resource = "Encounter"

[row]
table = "msemr_encounter"
entity_set = "msemr_encounters"
key = "msemr_encounterid"
id_column = "msemr_azurefhirid"
version_column = "msemr_azurefhirversion"
updated_column = "msemr_azurefhirlastupdatedon"
routes = ["virtual"]
name_column = "msemr_name"

[[attribute]]
column = "msemr_name"
path = "id"
"""


def control(organisation: Organisation, **settings: Any) -> None:
    organisation.send("POST", "control/settings", settings)


def test_labels_are_in_the_base_language_of_the_organisation(organisation: Organisation) -> None:
    control(organisation, language=1031)
    status, said = organisation.run()
    assert status == 0, said
    path = "EntityDefinitions(LogicalName='abc_ve_observation')?$select=DisplayName"
    (label,) = organisation.get(path)["DisplayName"]["LocalizedLabels"]
    assert label["Label"] == "Observation", "a label in another language is dropped"


def test_an_option_has_its_number_as_external_value_too(organisation: Organisation) -> None:
    organisation.run()
    cast = "Microsoft.Dynamics.CRM.PicklistAttributeMetadata"
    path = f"EntityDefinitions(LogicalName='abc_ve_observation')/Attributes/{cast}"
    columns = organisation.get(f"{path}?$select=LogicalName&$expand=OptionSet($select=Options)")
    options = [one for column in columns["value"] for one in column["OptionSet"]["Options"]]
    assert options
    assert all(one["ExternalValue"] == str(one["Value"]) for one in options)


@pytest.mark.parametrize("answer", ["refused", "allowed"])
def test_lookups_between_virtual_tables_are_tried_and_left_out_where_they_are_refused(
    organisation: Organisation, tmp_path: Path, answer: str
) -> None:
    (tmp_path / "encounter.toml").write_text(ENCOUNTER, "utf-8")
    control(organisation, virtualRelationships=answer)
    status, said = organisation.run()
    assert status == 0, said
    what = "lookup abc_encounter of abc_ve_observation, to abc_ve_encounter"
    word = "made" if answer == "allowed" else "left out"
    assert any(line.startswith(f"{word}:  {what}") for line in said), said
    again, said = organisation.run()
    assert again == 0
    assert counts(said)["made"] == 0


def test_a_key_whose_index_failed_is_for_a_person(organisation: Organisation) -> None:
    organisation.run()
    organisation.send("DELETE", "control/keys?table=contact&name=abc_fhir_key")
    for _ in range(2):
        contact = {"abc_fhirid": "p1", "abc_fhirtype": "Patient"}
        organisation.send("POST", "api/data/v9.2/contacts", contact)
    key = {
        "table": "contact",
        "name": "abc_fhir_key",
        "columns": ["abc_fhirid", "abc_fhirtype"],
    }
    organisation.send("POST", "control/keys", key)
    status, said = organisation.run()
    assert status == 1
    assert any(line.startswith("to do:") and "ReactivateEntityKey" in line for line in said)


def test_the_changes_of_contacts_are_tracked_where_edits_are_written_back(
    organisation: Organisation, env: pytest.MonkeyPatch
) -> None:
    organisation.send("POST", "control/tracking", {"table": "contact", "on": False})
    contact = "EntityDefinitions(LogicalName='contact')?$select=ChangeTrackingEnabled"
    _, said = organisation.run()
    assert "change tracking of contact" not in " ".join(said)
    assert organisation.get(contact)["ChangeTrackingEnabled"] is False

    env.setenv("WRITEBACK", "poll")
    status, said = organisation.run()
    assert status == 0, said
    assert "change tracking of contact" in made(said)
    assert organisation.get(contact)["ChangeTrackingEnabled"] is True
    _, said = organisation.run()
    assert "change tracking of contact" not in made(said)


# --- tables with rows, where Microsoft's are not there --------------------------------------------


def test_a_table_of_the_organisation_is_made_whole_and_once(
    organisation: Organisation, env: pytest.MonkeyPatch
) -> None:
    env.setenv("MAPS_ENABLED", "allergy_intolerance")
    status, said = organisation.run("--physical", "AllergyIntolerance")
    assert status == 0, said
    table = organisation.get("EntityDefinitions(LogicalName='abc_allergyintolerance')")
    assert (table["TableType"], table["OwnershipType"]) == ("Standard", "UserOwned")
    assert table["EntitySetName"] == "abc_allergyintolerances"
    columns = organisation.get("EntityDefinitions(LogicalName='abc_allergyintolerance')/Attributes")
    names = {column["LogicalName"] for column in columns["value"]}
    assert {
        "abc_allergyintoleranceid",
        "abc_name",
        "abc_criticality",
        "abc_codetext",
        "abc_azurefhirid",
        "abc_patient",
        "statecode",
        "ownerid",
    } <= names
    assert "abc_encounter" not in names, "no table with rows shows encounters"
    again, said = organisation.run("--physical", "AllergyIntolerance")
    assert again == 0
    assert "made=0" in said[-1]


def test_a_table_that_microsoft_has_is_not_made(organisation: Organisation) -> None:
    status, said = organisation.run("--physical", "Patient")
    assert status == 2
    assert "--physical Patient" in said[-1]
