"""Clients of OData that others have written read and write the feed, through the real endpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests
from odata import ODataService
from odata.exceptions import NoResultsFound, ODataError

from local.processes import PROJECT
from tests.virtual_tables.served import (
    FINAL,
    KEY,
    PAGE,
    PATIENT,
    PRELIMINARY,
    ROWS,
    Served,
)

HERE = Path(__file__).parent
NODE_PARTS = [
    PROJECT / "local/node_modules" / name for name in ("@odata/client", "odata", "ts-odata-client")
]

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not all(item.exists() for item in NODE_PARTS),
    reason="local/node_modules lacks the clients: run make test",
)


pytestmark = pytest.mark.usefixtures("observations")


def ask_node(served: Served, script: str) -> dict[str, Any]:
    """What a client in JavaScript saw."""
    return served.ask(["node", "--no-deprecation", str(HERE / script)])


# -- python-odata ---------------------------------------------------------------------------------


@pytest.fixture
def service(served: Served) -> ODataService:
    """Knows the entity sets and their properties from $metadata alone."""
    session = requests.Session()
    session.headers["x-functions-key"] = KEY
    return ODataService(served.root, session=session, reflect_entities=True, quiet_progress=True)


def test_a_client_learns_the_sets_and_their_properties_from_the_metadata(
    service: ODataService,
) -> None:
    assert len(service.entities) == 20
    known = service.entities["msemr_observations"]
    assert known.msemr_observationid.primary_key
    assert known.msemr_components.is_computed_value
    assert not known.msemr_codetext.is_computed_value


def test_python_reads(service: ODataService) -> None:
    known = service.entities["msemr_observations"]
    query = service.query(known)

    def where(condition: Any) -> set[str]:
        return {item.msemr_codetext for item in query.filter(condition).all()}

    assert {item.msemr_codetext for item in query.all()} == {f"Weight {n}" for n in range(ROWS)}
    assert query.get(str(UUID(int=103))).msemr_codetext == "Weight 3"
    assert where(known.msemr_codetext == "weight 3") == {"Weight 3"}
    assert where(known.msemr_codetext.endswith("4")) == {"Weight 4", "Weight 14", "Weight 24"}
    assert where(known.msemr_codetext.lacks("weight")) == set()
    assert where(known.msemr_valuetypequantityvalue.is_null()) == {"Weight 0"}
    assert where(known.msemr_valuetypequantityvalue >= 71.5) == {"Weight 23", "Weight 24"}
    assert len(where(known._msemr_subjectpatient_value == PATIENT)) == ROWS
    both = (known.msemr_status == PRELIMINARY) & (known.msemr_codetext != "Weight 0")
    assert where(both | (known.msemr_codetext == "Weight 9")) == {
        "Weight 1",
        "Weight 2",
        "Weight 3",
        "Weight 9",
    }
    newest = query.order_by(known.msemr_effectivedate.desc()).offset(1).limit(2).all()
    assert [item.msemr_codetext for item in newest] == ["Weight 23", "Weight 22"]
    only = query.select(known.msemr_codetext).filter(known.msemr_codetext == "Weight 8").all()
    assert [item["msemr_codetext"] for item in only] == ["Weight 8"]


def test_python_writes(service: ODataService, served: Served) -> None:
    known = service.entities["msemr_observations"]
    made = known()
    made.msemr_codetext = "Temperature"
    made.msemr_status = FINAL
    service.save(made)
    path = f"Observation/{made.msemr_observationid}"
    stored = served.fhir.get(path).json()
    assert (stored["code"], stored["status"]) == ({"text": "Temperature"}, "final")
    assert not stored.keys() & {"subject", "valueBoolean"}

    made.msemr_codetext = "Fever's"
    service.save(made)
    assert made.msemr_azurefhirversion == "2"
    assert served.fhir.get(path).json()["code"] == {"text": "Fever's"}

    service.delete(made)
    assert served.fhir.get(path).status_code == 410
    with pytest.raises(NoResultsFound):
        service.query(known).get(made.msemr_observationid)


def test_python_understands_what_is_wrong(service: ODataService, served: Served) -> None:
    known = service.entities["msemr_observations"]
    with pytest.raises(ODataError, match=r"HTTP 501 .*\$apply is not offered"):
        service.query(known).apply("aggregate($count as n)").all()
    row = service.query(known).get(str(UUID(int=100)))
    row.msemr_status = 7
    with pytest.raises(ODataError, match=r"HTTP 400 .*msemr_status"):
        service.save(row)
    stranger = requests.get(served.root, headers={"x-functions-key": "guessed"}, timeout=30)
    assert stranger.status_code == 401


# -- @odata/client --------------------------------------------------------------------------------


@needs_node
def test_javascript_reads_and_writes(served: Served) -> None:
    found = ask_node(served, "odata_client.mjs")
    assert "msemr_observations" in found["sets"]
    assert len(found["sets"]) == 20
    assert found["byKey"]["msemr_codetext"] == "Weight 0"
    assert found["equal"] == ["Weight 3"]
    assert sorted(found["choice"]) == ["Weight 0", "Weight 1", "Weight 2", "Weight 3"]
    assert sorted(found["several"]) == ["Weight 1", "Weight 2"]
    assert sorted(found["number"]) == ["Weight 1", "Weight 2", "Weight 3"]
    assert sorted(found["dates"]) == [
        "Weight 20",
        "Weight 21",
        "Weight 22",
        "Weight 23",
        "Weight 24",
    ]
    assert found["lookup"] == PAGE  # it stops at the first page
    assert found["missing"] == ["Weight 0"]
    assert found["ordered"] == ["Weight 23", "Weight 22"]
    assert found["count"] == 4

    made, changed = found["made"], found["changed"]
    assert (made["msemr_codetext"], made["msemr_status"]) == ("Temperature", FINAL)
    assert changed["msemr_codetext"] == "Fever's"
    assert changed["msemr_valuetypequantityvalue"] == 37.2
    assert found["gone"] == "there is no entity with this key"

    assert "has no property nothing" in found["unknown"]
    assert found["readOnly"] == "msemr_components cannot be written"
    assert found["expand"] == "$expand is not offered"


# -- ts-odata-client ------------------------------------------------------------------------------


@needs_node
def test_javascript_follows_pages_and_builds_conditions(served: Served) -> None:
    found = ask_node(served, "ts_odata_client.mjs")
    assert found["pages"] == [10, 10, 5]
    assert sorted(found["every"]) == sorted(f"Weight {n}" for n in range(ROWS))
    assert found["byKey"]["msemr_codetext"] == "Weight 0"
    assert sorted(found["combined"]) == ["Weight 1", "Weight 2", "Weight 3"]
    assert sorted(found["either"]) == ["Weight 4", "Weight 5"]
    assert sorted(found["listed"]) == ["Weight 6", "Weight 7"]
    assert found["starting"] == PAGE  # of eleven
    assert sorted(found["since"]) == ["Weight 22", "Weight 23", "Weight 24"]
    assert found["missing"] == ["Weight 0"]
    assert [item["msemr_codetext"] for item in found["chosen"]] == ["Weight 23", "Weight 22"]
    assert found["counted"] == 4
    assert "put what not negates in parentheses" in found["misbuilt"]["message"]
    assert found["unknown"]["target"] == "nothing"
    assert found["expanded"]["message"] == "$expand is not offered"


# -- o.js ------------------------------------------------------------------------------------------


@pytest.fixture
def seen_by_o_js(served: Served, observations: None) -> dict[str, Any]:
    return ask_node(served, "o_js.mjs")


@needs_node
def test_o_js_reads(seen_by_o_js: dict[str, Any]) -> None:
    found = seen_by_o_js
    assert "msemr_observations" in found["sets"]
    assert found["metadata"] == 200
    pages = found["pages"]
    assert (pages["counted"], [len(page) for page in pages["found"]]) == (ROWS, [10, 10, 5])
    every = {name for page in pages["found"] for name in page}
    assert every == {f"Weight {number}" for number in range(ROWS)}
    assert found["byKey"]["msemr_codetext"] == "Weight 0"
    assert found["onlyText"]["msemr_codetext"] == "Weight 0"
    assert "msemr_status" not in found["onlyText"]
    assert found["equal"] == ["Weight 3"]
    assert len(found["lookup"]) == PAGE  # it stops at the first page
    assert found["none"] == []
    assert (found["counted"], found["countedNone"]) == (4, 0)
    assert found["chosen"] == ["Weight 23", "Weight 22"]
    assert sorted(found["negated"]) == ["Weight 0", "Weight 2", "Weight 3"]
    assert sorted(found["either"]) == ["Weight 4", "Weight 5"]
    assert sorted(found["listed"]) == ["Weight 6", "Weight 7"]
    assert found["guids"] == ["Weight 0"]
    assert found["missing"] == ["Weight 0"]
    assert [found["several"][0]["msemr_codetext"], found["several"][1]] == ["Weight 0", ROWS]


@needs_node
def test_o_js_writes(seen_by_o_js: dict[str, Any]) -> None:
    found = seen_by_o_js
    made, changed, whole = found["made"], found["changed"], found["sentBack"]
    assert (made["msemr_codetext"], made["msemr_status"]) == ("Temperature", FINAL)
    assert (found["patched"], changed["msemr_codetext"]) == (204, "Fever's")
    # What was read is sent back, with one property changed.
    assert (found["whole"], whole["msemr_codetext"]) == (204, "Fever")
    assert whole["msemr_valuetypequantityvalue"] == 37.2
    assert (found["stale"]["status"], found["stale"]["target"]) == (412, "If-Match")
    assert found["deleted"] == 204
    assert found["gone"]["status"] == 404


@needs_node
def test_o_js_understands_what_is_wrong(seen_by_o_js: dict[str, Any]) -> None:
    found = seen_by_o_js
    assert (found["malformed"]["status"], found["malformed"]["target"]) == (400, "$filter")
    assert (found["unknown"]["status"], found["unknown"]["target"]) == (400, "nothing")
    assert found["wrongType"]["message"] == "msemr_status is Edm.Int32"
    assert found["readOnly"]["message"] == "msemr_components cannot be written"
    assert (found["expand"]["status"], found["expand"]["target"]) == (501, "$expand")
    assert found["put"]["status"] == 405
    assert (found["batch"]["status"], found["batch"]["message"]) == (501, "$batch is not offered")
