"""What an answer means, and what the table says of it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from integration.check import remedies, report, results
from integration.check.report import State
from integration.cli.main import main
from local.processes import PROJECT

NOON = datetime.fromisoformat("2026-03-02T12:00:00.900+00:00")
SECOND = timedelta(seconds=1)


def clock(date: str | None, ours: datetime, most: float = 60) -> report.CheckResult:
    return results.evaluate_clock("clock", date, ours, ours + SECOND / 10, most)


def test_a_date_cut_to_the_second_of_an_answer_on_its_way_is_no_difference() -> None:
    line = clock("Mon, 02 Mar 2026 12:00:00 GMT", NOON)
    assert (line.state, line.detail) == (State.OK, "0 s apart")


@pytest.mark.parametrize(("late", "side"), [(300, "ahead of"), (-300, "behind")])
def test_a_clock_that_is_wrong_is_told_with_its_side(late: int, side: str) -> None:
    line = clock("Mon, 02 Mar 2026 12:00:00 GMT", NOON + late * SECOND)
    assert line.state is State.FAILED
    assert re.search(rf"is (299|300) s {side} it", line.detail)
    assert clock("Mon, 02 Mar 2026 12:00:00 GMT", NOON + late * SECOND, 301).state is State.OK


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_an_answer_without_a_date_says_nothing_of_a_clock(date: str | None) -> None:
    assert clock(date, NOON).state is State.SKIPPED


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}, None),
        (200, {"resourceType": "CapabilityStatement", "fhirVersion": "5.0.0"}, "fhirVersion 5.0.0"),
        (200, {"resourceType": "Patient", "id": "Zaphkiel"}, "without a CapabilityStatement"),
        (404, None, "answered 404"),
    ],
)
def test_only_an_r4_server_is_the_right_one(status: int, body: Any, found: str | None) -> None:
    line = results.evaluate_metadata("FHIR", status, body)
    assert (line.state is State.OK) is (found is None)
    assert (found or "4.0.1") in line.detail
    assert "Zaphkiel" not in line.detail


@pytest.mark.parametrize("status", [404, 410])
def test_a_read_of_nothing_that_finds_nothing_was_allowed(status: int) -> None:
    assert results.evaluate_read("read", status).state is State.OK


@pytest.mark.parametrize("status", [404, 412])
def test_an_update_that_its_condition_refused_was_allowed(status: int) -> None:
    assert results.evaluate_write("write", status).state is State.OK


@pytest.mark.parametrize("status", [200, 201, 400, 405, 500])
def test_any_other_answer_is_not_what_was_wanted(status: int) -> None:
    for verdict in (results.evaluate_read, results.evaluate_write):
        line = verdict("it", status)
        assert line.state is State.FAILED
        assert line.remedy


def held(name: str, depth: str = "Global") -> dict[str, str]:
    return {"PrivilegeName": name, "Depth": depth}


def test_a_privilege_counts_for_the_whole_organisation_only_and_in_any_case() -> None:
    wanted = ["prvReadContact", "prvWriteContact"]
    both = [held("prvreadcontact"), held("prvWriteContact")]
    assert results.evaluate_privileges("it", wanted, both).state is State.OK
    one = results.evaluate_privileges("it", wanted, [both[0], held("prvWriteContact", "Local")])
    assert (
        one.detail
        == "missing: prvWriteContact; 1 of them granted, but not for the whole organisation"
    )
    assert one.remedy == remedies.PROVISION


def test_a_key_must_be_there_and_its_index_ready() -> None:
    def there(state: str) -> list[dict[str, Any]]:
        return [{"KeyAttributes": ["b", "a"], "EntityKeyIndexStatus": state}]

    assert results.evaluate_keys("it", [("a", "b")], there("Active")).state is State.OK
    assert (
        results.evaluate_keys("it", [("a", "b")], there("Failed")).detail
        == "not active: its index is Failed"
    )
    assert (
        results.evaluate_keys("it", [("a", "c")], there("Active")).detail
        == "missing: a key of a + c"
    )


def test_a_long_list_is_cut_and_says_so() -> None:
    assert results.abbreviate(map(str, range(10))).endswith("7 and 2 more")


def test_each_check_is_one_line_and_a_failure_ends_with_its_mend() -> None:
    told = report.render_table(
        [
            report.report_ok("a", "well"),
            report.report_failure("longer", "not", "do this"),
            report.report_skip("b", "for a reason"),
        ]
    )
    assert told == [
        "a       ok       well",
        "longer  failed   not => do this",
        "b       skipped  for a reason",
        "check: ok=1 failed=1 warning=0 skipped=1",
    ]


def every_mend() -> list[str]:
    said = [
        text for name, text in vars(remedies).items() if name.isupper() and isinstance(text, str)
    ]
    kinds = ("container", "queue", "table")
    said += [remedies.suggest_create(kind, "name", "account") for kind in kinds]
    said += [remedies.suggest_storage_role(kind, "account", None) for kind in kinds]
    return [*said, remedies.suggest_fhir_role("id"), remedies.suggest_columns("abc")]


def test_each_page_that_a_mend_names_is_there() -> None:
    pages = [page for mend in every_mend() for page in re.findall(r"docs/[\w/-]+(?:\.md)", mend)]
    assert pages
    assert [page for page in pages if not (PROJECT / page).is_file()] == []


def test_each_command_that_a_mend_names_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {one for mend in every_mend() for one in re.findall(r"-m integration (\w+)", mend)}
    assert commands
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
    capsys.readouterr()
