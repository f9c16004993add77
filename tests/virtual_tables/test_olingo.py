"""Apache Olingo's client in Java reads and writes the feed, through the real endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from integration.core import decimal_json
from local.maven import build_program, find_obstacle
from local.processes import PROJECT
from tests.virtual_tables import rich
from tests.virtual_tables.conftest import SHAPES
from tests.virtual_tables.served import FINAL, PAGE, PATIENT, ROWS, Served

pytestmark = pytest.mark.java

SOURCE = Path(__file__).parent / "olingo"
BUILD = PROJECT / ".local" / "olingo"
OASIS = "https://oasis-tcs.github.io/odata-vocabularies/vocabularies"

RICH = {
    shape.type.set: (shape.resource, str(UUID(int=500 + number)))
    for number, shape in enumerate(SHAPES.values())
}
RICH_TEXT = "some text"
ODD = "Öl's 50% & 1/2 + #3"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def found(served: Served) -> Json:
    """What the client saw: it does all in one run, which takes seconds."""
    if obstacle := find_obstacle("Olingo"):
        pytest.skip(obstacle)
    classpath = build_program("Olingo", SOURCE, BUILD)
    served.put_observations()
    for type_, key in RICH.values():
        made = decimal_json.encode(rich.resource(type_, key))
        headers = {"content-type": "application/fhir+json"}
        answer = served.fhir.put(f"{type_}/{key}", content=made, headers=headers)
        assert answer.status_code == 201, answer.text
    before = read(served, "msemr_observations")
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", classpath, "OlingoClient"]
    rows = [[name, key] for name, (_, key) in RICH.items()]
    seen = served.ask(command, rows=rows, rich=RICH["msemr_observations"][1])
    return {**seen, "before": before}


def test_olingo_learns_from_the_metadata(found: Json) -> None:
    assert found["keys"] == ["msemr_observationid"]
    assert len(found["sets"]) == len(SHAPES)
    types = found["types"]
    assert types["msemr_status"] == "Int32"
    assert types["msemr_valuetypequantityvalue"] == "Decimal"
    assert types["msemr_effectivedate"] == "DateTimeOffset"
    assert types["_msemr_subjectpatient_value"] == "Guid"
    assert "msemr_components" in found["computed"]
    assert "msemr_codetext" not in found["computed"]


def test_olingo_looks_for_the_vocabularies_at_the_addresses_that_the_metadata_names(
    found: Json,
) -> None:
    """A namespace whose terms are used has to be referred to, with a URL that should lead to it:
    https://docs.oasis-open.org/odata/odata/v4.0/odata-v4.0-part3-csdl.html (3.3).

    So the feed may not leave the references out. A client that reaches no other host reads
    $metadata as text, which is what this one then does.
    """
    assert found["elsewhere"] == f"{OASIS}/Org.OData.Core.V1.xml"


def test_olingo_reads_lists(found: Json) -> None:
    assert found["equal"] == ["Weight 3"]
    assert sorted(found["choice"]) == ["Weight 0", "Weight 1", "Weight 2", "Weight 3"]
    assert sorted(found["number"]) == ["Weight 1", "Weight 2"]
    assert sorted(found["since"]) == ["Weight 22", "Weight 23", "Weight 24"]
    assert found["lookup"] == PAGE
    assert sorted(found["missing"]) == ["Weight 0", RICH_TEXT]
    assert sorted(found["contains"]) == ["Weight 1", "Weight 2", "Weight 3"]
    assert sorted(found["endsWith"]) == ["Weight 3", "Weight 4"]
    assert found["chosen"] == ["Weight 23", "Weight 22"]
    assert found["counted"] == [4, 1]
    assert found["count"] == "4"


def test_olingo_follows_pages(found: Json) -> None:
    assert [len(page) for page in found["pages"]] == [9, 9, ROWS + 1 - 18]
    every = {name for page in found["pages"] for name in page}
    assert every == {*(f"Weight {number}" for number in range(ROWS)), RICH_TEXT}
    # Its iterator ends with the page, and says where the next one is.
    assert (found["iterated"], found["iteratedNext"]) == (PAGE, True)


def test_olingo_reads_rows_with_the_types_of_the_metadata(found: Json) -> None:
    row = found["byKey"]
    assert row["msemr_codetext"] == "Weight 0"
    assert (row["msemr_status"], row["msemr_status type"]) == ("935000001", "Edm.Int32")
    lookup = "_msemr_subjectpatient_value"
    assert (row[lookup], row[f"{lookup} type"]) == (PATIENT, "Edm.Guid")
    assert row["msemr_effectivedate type"] == "Edm.DateTimeOffset"
    assert row["etag"] == 'W/"1"'
    assert found["onlyText"]["msemr_codetext"] == "Weight 0"
    assert "msemr_status" not in found["onlyText"]
    assert found["unchanged"] == 304


@pytest.mark.parametrize("metadata", ["minimal", "full"])
def test_olingo_writes(found: Json, metadata: str) -> None:
    """`full` is what Olingo sends unless it is set otherwise: each value with its type."""
    written = found[metadata]
    made, changed = written["made"], written["changed"]
    assert (written["created"], written["madeType"]) == (201, "FhirRelay.msemr_observation")
    assert (made["msemr_codetext"], made["msemr_status"]) == ("Temperature", str(FINAL))
    assert made["msemr_valuetypequantityvalue"] == "37.2"
    assert (written["patched"], written["found"]) == (204, [ODD])
    assert (written["sentBack"], changed["msemr_codetext"]) == (200, "Fever")
    assert changed["msemr_valuetypequantityvalue"] == "37.2"
    assert changed["etag"] == 'W/"3"'
    for refused in (written["stale"], written["staleDelete"]):
        assert (refused["status"], refused["target"]) == (412, "If-Match")
    assert written["replaced"]["status"] == 405  # a service may leave PUT out (part 1, 11.4.3)
    assert written["deleted"] == 204
    assert written["gone"]["status"] == 404
    assert written["quiet"] == [204, 204]  # created without being shown, and deleted


def test_rows_that_olingo_sends_back_as_it_read_them_change_nothing(
    served: Served, found: Json
) -> None:
    assert found["sentBack"] == [dict.fromkeys(RICH, 204)] * 4
    stored = {name: read(served, name)["meta"]["versionId"] for name in RICH}
    assert stored == {name: "2" if name == "msemr_observations" else "1" for name in RICH}


def test_a_row_that_olingo_sends_back_whole_changes_what_was_changed_in_it(
    served: Served, found: Json
) -> None:
    assert found["commented"] == 204
    stored = read(served, "msemr_observations")
    before = found["before"]
    assert stored["note"][0]["text"] == "Seen"
    before["note"][0]["text"] = "Seen"
    del before["note"][0]["_text"]  # the extension of the old text
    assert {**stored, "meta": before["meta"]} == before


def test_olingo_understands_what_is_wrong(found: Json) -> None:
    assert (found["malformed"]["status"], found["malformed"]["target"]) == (400, "$filter")
    assert (found["unknown"]["status"], found["unknown"]["target"]) == (400, "nothing")
    assert found["readOnly"]["message"] == "msemr_components cannot be written"
    assert found["atom"]["status"] == 406
    for name, message in (
        ("expand", "$expand is not offered"),
        ("property", "only $count is offered below msemr_observations; use $select"),
    ):
        assert found[name] == {"line": "HTTP/1.1 501 Not Implemented", "message": message}


def test_olingo_cannot_build_a_filter_with_a_text_that_is_not_encoded(found: Json) -> None:
    """It writes texts into a filter as they are, decodes the filter, and encodes it again. OData's
    grammar wants quotes doubled (SQUOTE-in-string), so its caller has to do both.
    """
    assert found["misquoted"] == {"client": "IllegalArgumentException"}


def read(served: Served, name: str) -> Json:
    type_, key = RICH[name]
    stored: Json = decimal_json.decode(served.fhir.get(f"{type_}/{key}").content)
    return stored
