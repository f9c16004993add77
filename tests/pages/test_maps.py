"""The pages Maps: an admin reads what a map does, and sees what it makes of a resource."""

from __future__ import annotations

import json
import logging
import re
import threading
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from integration.core.errors import Unavailable
from integration.core.flow import OTHER_ELEMENTS, HourFlow, UnmappedElement, find_hour
from integration.journal.audit_entry import AccessKind
from integration.journal.flow_log import MemoryFlowLog
from integration.mapping import files
from integration.mapping.files import parse_map_file
from integration.pages.maps import MAX_ROWS
from tests.audits import FailingAuditLog, make_recorder
from tests.builders import MARKER, Body, batch, entry, patient
from tests.conftest import Route, told_by
from tests.operations.status_parts import Broken
from tests.pages.asking import NAME, Visitor, count_flow, visit

PATIENT = "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e5f"

OWN = """
# What we show of places.
#
# Asked for by the wards.

resource = "Location"

[row]
table = "account"
entity_set = "accounts"
key = "accountid"
id_column = "msemr_azurefhirid"
version_column = "msemr_azurefhirversion"
updated_column = "msemr_azurefhirlastupdatedon"
routes = ["virtual", "dataverse"]
name_column = "name"

[variables]
# The name on the door.
door = "name"

[rest]
telecom = "telecom" # nobody calls a place

# -- what people see ----

[[attribute]]
column = "name"
# So that it is found.
path = "%door"
max_length = 160
write = "create"

[[attribute]]
column = "telephone1"
path = "telecom.value.first()"
max_length = 10

[[attribute]]
column = "statuscode"
kind = "choice"
path = "status"
choices = { active = 1, inactive = [2, 3] }
default = 1 # most are
"""

MINE = [parse_map_file("location.toml", OWN)]


def phi(route: Route) -> Visitor:
    return visit(route, "reader", "phi")


async def test_the_maps_in_use_are_listed(route: Route) -> None:
    reply = await visit(route, "reader").get("maps")
    listed = reply.row("Patient")
    assert listed[1:4] == ["works", "contact", "dataverse"]
    assert int(listed[4]) > 100
    assert listed[6:] == ["patient.toml (healthcare)"]
    assert "maps were not compared with the columns in Dataverse here" in reply.text
    assert reply.row("Goal")[6] == "goal.toml (clinical)"
    assert "MAPS_ENABLED" in reply.text
    assert "practitioner (Practitioner)" in reply.text
    assert "us_core (adds to Patient)" in reply.text


async def test_a_broken_map_comes_first_with_its_error(route: Route) -> None:
    broken = parse_map_file("patient.toml", OWN.replace("Location", "Patient") + "\nx = 1")
    visitor = visit(route, "reader", map_files=[*MINE, broken])
    text = (await visitor.get("maps")).text
    assert "1 map is broken" in text
    assert text.index("patient.toml") < text.index("location.toml")
    assert "x is no key" in text
    page = await visitor.with_roles("reader", "phi").get("maps/Patient")
    assert page.status == 200
    assert "The map of Patient is broken" in page.text
    assert "<form" not in page.html


async def test_a_broken_map_that_is_not_in_use_is_shown_as_such(route: Route) -> None:
    unused = parse_map_file("care.toml", "enabled = false\n" + OWN.replace("Location", "Care"))
    wrong = replace(unused, text=unused.text, data={**unused.data, "x": 1})
    addition = parse_map_file("more.toml", 'adds_to = "Goal"\n[[attribute]]\ncolumn = "a"\n')
    reply = await visit(route, "reader", map_files=[*MINE, wrong, addition]).get("maps")
    (listed,) = [row for row in reply.rows if row[0] == "Goal"]
    assert listed[2] == "not in use"
    assert listed[1].startswith("broken")
    assert "care (Care) broken" in reply.text
    assert "x is no key" in reply.text


async def test_a_map_that_does_not_fit_its_table_is_not_said_to_work(route: Route) -> None:
    """As far as this worker knows the table: the page asks Dataverse for nothing."""
    text = OWN.replace('"telephone1"', '"nosuchcolumn"').replace('"virtual"', '"dataverse"')
    visitor = visit(route, "reader", "phi", "admin", map_files=[parse_map_file("l.toml", text)])
    await visitor.post("data-routes/Location", route="dataverse")
    before = await visitor.get("maps")
    assert before.row("Location")[1] == "works"
    assert "1 map was not compared with the columns in Dataverse here" in before.text
    asked = len(route.dataverse_double.received)
    await visitor.post("maps/Location", resource='{"resourceType": "Location"}')
    assert len(route.dataverse_double.received) > asked
    asked = len(route.dataverse_double.received)
    page = await visitor.get("maps")
    assert len(route.dataverse_double.received) == asked
    assert page.row("Location")[1].startswith("does not fit its table")
    assert "nosuchcolumn" in page.row("Location")[1]


async def test_a_map_is_shown_with_the_reasons_of_its_comments(route: Route) -> None:
    reply = await visit(route, "reader", map_files=MINE).get("maps/Location")
    text = reply.text
    assert "What we show of places." in text
    assert "What people see" in text
    assert reply.row("name")[1:] == [
        *("%door", "copy text, as it is; cut where it is too long"),
        *("So that it is found.", "when it is created"),
    ]
    status = reply.row("statuscode")
    assert "an option, by its code; without one 1" in status[2]
    assert "inactive becomes 2 or 3" in status[2]
    assert status[3:] == ["most are", "no"]
    assert reply.row("telecom") == ["telecom", "telecom", "nobody calls a place"]
    assert reply.row("%door") == ["%door", "name", "The name on the door."]


async def test_child_rows_and_what_becomes_of_them_are_shown(route: Route) -> None:
    text = (await visit(route, "reader").get("maps/Patient")).text
    assert "identifier becomes msemr_medicalidentifier" in text
    assert "A row whose item is gone in FHIR is deleted, if this app made it." in text
    assert "its row is deactivated ( ON_DELETE )" in text


async def test_every_shipped_map_can_be_shown(route: Route) -> None:
    named = ["organization", "practitioner", "related_person", "us_core"]
    visitor = visit(
        route, "reader", map_files=files.read_map_files("healthcare", "new", enabled=named)
    )
    maps = visitor.parts.maps.load()
    assert maps.broken == {}
    for name in maps.entities:
        assert (await visitor.get(f"maps/{name}")).status == 200, name


async def test_there_is_no_page_of_a_type_without_a_map(route: Route) -> None:
    assert (await visit(route, "reader").get(f"maps/{MARKER}")).status == 404


# --- what was not mapped lately -------------------------------------------------------------------


async def test_what_was_not_mapped_lately_is_named_the_most_frequent_first(route: Route) -> None:
    count_flow(route)
    people = [patient(id=f"a{n}", birthDate="1980") for n in range(2)]
    people += [patient(id=f"b{n}", photo=[{"url": MARKER}] * n) for n in range(1, 4)]
    await route.process_all(await route.deliver(batch(*(entry(p, method="PUT") for p in people))))
    await route.mirror_all()
    page = await visit(route, "reader").get("maps/Patient")
    table = page.html.partition('aria-label="What was not mapped, by element"')[2].partition(
        "</table>"
    )[0]
    found = re.findall(r"<th scope=.row.>(.*?)</th>.*?<td class=.number.>(\d+)</td>", table)
    assert found == [
        ("photo: more than the map has columns for", "3"),
        ("birthdate: the date is incomplete", "2"),
    ]
    assert page.row("birthdate:")[1] == "birthDate"
    assert MARKER not in page.html
    assert "There was more" not in page.text


async def test_what_was_not_mapped_of_others_is_on_their_own_pages(route: Route) -> None:
    told = UnmappedElement("Goal", "note", "note: too long")
    log = MemoryFlowLog()
    hour = find_hour(route.clock()) - timedelta(hours=100)
    lost = {told: 7, OTHER_ELEMENTS: 3}
    await log.save_flows([HourFlow(hour=hour, worker="a", unmapped=lost)])
    visitor = visit(route, "reader", flow=log)
    page = await visitor.get("maps/Patient")
    assert "Nothing: every row took what the map gives it" in page.text
    assert "There was more than is named here" in page.text
    assert (await visitor.get("maps/Goal")).row("note:") == ["note: too long", "note", "7"]


async def test_a_virtual_table_counts_nothing_so_nothing_is_said_of_it(route: Route) -> None:
    assert "Not mapped lately" not in (await visit(route, "reader").get("maps/Goal")).text


async def test_a_map_is_shown_though_the_counts_cannot_be_read(route: Route) -> None:
    page = await visit(route, "reader", flow=Broken(), status={"flow": MemoryFlowLog()}).get(
        "maps/Patient"
    )
    assert page.status == 200
    assert "Cannot be read now" in page.text
    assert "Columns" in page.text


# --- a resource that is tried ---------------------------------------------------------------------


async def test_a_resource_becomes_the_row_that_the_mirror_would_write(route: Route) -> None:
    person = patient(id=PATIENT, gender="female", name=[{"family": MARKER, "given": ["Ada"]}])
    reply = await phi(route).post("maps/Patient", resource=json.dumps(person))
    assert reply.status == 200
    assert f'"{MARKER}"' in reply.text
    assert "2 female" in reply.text
    await route.process_all(await route.deliver(person, method="PUT", type="Patient", id=PATIENT))
    await route.mirror_all()
    written = await route.dataverse_double.contact()
    assert written["lastname"] == MARKER
    assert written["gendercode"] == 2


async def test_what_is_not_mapped_is_said_with_why_and_without_a_value(route: Route) -> None:
    person = patient(photo=[{"url": MARKER}], birthDate="1980")
    text = (await phi(route).post("maps/Patient", resource=json.dumps(person))).text
    assert "2 things were not mapped, or not whole" in text
    assert "photo 1 more than the map has columns for" in text
    assert "birthdate" in text


async def test_the_columns_of_the_organisation_count(route: Route) -> None:
    visitor = visit(route, "reader", "phi", map_files=MINE)
    visitor.parts.data_routes.clear_cache()
    place = {"resourceType": "Location", "name": "n" * 300}
    virtual = await visitor.post("maps/Location", resource=json.dumps(place))
    assert "n" * 300 in virtual.text
    await visitor.with_roles("admin").post("data-routes/Location", route="dataverse", bring="no")
    mirrored = await visitor.post("maps/Location", resource=json.dumps(place))
    shown = mirrored.text
    assert "the text is longer than 160 characters and was cut" in shown
    assert "n" * 161 not in shown.partition("Try a resource")[0]


@pytest.mark.parametrize("number", [50, 300])
async def test_of_very_many_rows_the_first_are_shown_and_it_says_so(
    route: Route, number: int
) -> None:
    """And then they are shown beside the event loop."""
    threads: set[bool] = set()

    def now() -> datetime:
        threads.add(threading.current_thread() is threading.main_thread())
        return route.clock()

    many = [{"system": "urn:ward", "value": f"{n}-{'x' * 20}"} for n in range(number)]
    visitor = visit(route, "reader", "phi", now=now)
    person = json.dumps(patient(id=PATIENT, identifier=many))
    reply = await visitor.post("maps/Patient", resource=person)
    assert reply.html.count("<caption>") == min(number + 1, MAX_ROWS)
    assert ("The first 200 of 301 rows are shown" in reply.text) is (number > MAX_ROWS)
    assert (False in threads) is (number > MAX_ROWS)


async def test_without_dataverse_it_is_said_that_lengths_were_not_checked(route: Route) -> None:
    route.dataverse_double.will_fail(kind="status", status=503, next=50)
    text = (await phi(route).post("maps/Patient", resource=json.dumps(patient(id=PATIENT)))).text
    assert "lengths and options were not checked" in text
    assert "The row that would result" in text


async def test_an_id_is_read_from_the_fhir_server_and_audited(route: Route) -> None:
    route.fhir_double.put(f"Patient/{PATIENT}", patient(id=PATIENT, name=[{"family": MARKER}]))
    reply = await phi(route).post("maps/Patient", id=PATIENT)
    assert f'"{MARKER}"' in reply.text
    (entry,) = route.audit.entries
    assert entry.reader.user == NAME
    assert entry.access.kind is AccessKind.MAP_TRIAL
    assert entry.access.resources == (f"Patient/{PATIENT}",)
    assert entry.access.status == 200


async def test_what_cannot_be_audited_is_not_shown(route: Route) -> None:
    route.fhir_double.put(f"Patient/{PATIENT}", patient(id=PATIENT, name=[{"family": MARKER}]))
    visitor = phi(route)
    recorder = make_recorder(FailingAuditLog())
    visitor = visitor.with_parts(audit=recorder)
    reply = await visitor.post("maps/Patient", id=PATIENT)
    assert reply.status == 503
    assert MARKER not in reply.html


async def test_an_id_that_is_not_there_is_said_and_audited(route: Route) -> None:
    reply = await phi(route).post("maps/Patient", id=PATIENT)
    assert reply.status == 404
    assert "The FHIR server has no Patient with this id" in reply.text
    (entry,) = route.audit.entries
    assert (entry.access.status, entry.access.number) == (404, 0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Give either a resource or an id."),
        ({"id": "1", "resource": "{}"}, "Give either a resource or an id."),
        ({"id": "../metadata"}, "This is no FHIR id"),
        ({"resource": f'{{"resourceType": "Patient", "{MARKER}"'}, "This cannot be read"),
        ({"resource": f'["{MARKER}"]'}, "it has to be an object"),
        ({"resource": '{"resourceType": "Bundle"}'}, "This is no Patient"),
        (
            {"resource": '{"resourceType": "Patient", "a": ' + "[" * 150 + "]" * 150 + "}"},
            "nested more than 100 levels",
        ),
    ],
)
async def test_what_cannot_be_tried_is_said(
    route: Route, fields: dict[str, str], said: str
) -> None:
    reply = await phi(route).post("maps/Patient", **fields)
    assert reply.status == 400
    problem = reply.html.partition('role="alert">')[2].partition("</div>")[0]
    assert said in problem
    assert MARKER not in problem
    assert route.fhir_double.received == []


async def test_a_resource_whose_id_does_not_fit_is_refused_as_the_mirror_does(route: Route) -> None:
    person: Body = patient(id="a" * 64)
    text = (await phi(route).post("maps/Patient", resource=json.dumps(person))).text
    assert "There would be no row" in text
    assert "characters" in text


async def test_only_the_role_phi_may_try(route: Route) -> None:
    admin = visit(route, "admin")
    assert "The role phi may try a resource here" in (await admin.get("maps/Patient")).text
    assert (await admin.post("maps/Patient", id=PATIENT)).status == 403
    alone = admin.with_roles("phi")
    assert (await alone.post("maps/Patient", id=PATIENT)).status == 403
    assert route.audit.entries == []


async def test_nothing_of_a_tried_resource_is_written_or_logged(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    person = patient(id=PATIENT, name=[{"family": MARKER}], photo=[{"title": MARKER}])
    await phi(route).post("maps/Patient", resource=json.dumps(person))
    await phi(route).post("maps/Patient", resource=json.dumps(person) + "}")
    await route.activities.flush()
    assert MARKER not in told_by(caplog.records)
    assert route.dataverse_double.writes == []
    assert route.audit.entries == []
    assert MARKER not in repr(route.activity)
    assert all(MARKER not in repr(heard.path) for heard in route.dataverse_double.received)


async def test_a_fhir_server_that_does_not_answer_is_a_page(route: Route) -> None:
    route.fhir_double.down = 503
    reply = await phi(route).post("maps/Patient", id=PATIENT)
    assert reply.status == 503
    assert Unavailable.__name__ not in reply.text
