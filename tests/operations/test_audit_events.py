"""Entries of the audit log are valid AuditEvents of FHIR R4, which other systems can keep."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import msgspec
import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from hypothesis import given
from hypothesis import strategies as st

from integration.fhir.grammar import is_id
from integration.fhir.validation import find_issues
from integration.journal.audit_entry import (
    Access,
    AccessAction,
    AccessKind,
    AuditEntry,
    Reader,
    build_access,
)
from integration.journal.table_keys import build_audit_id
from integration.operations.audit_events import build_audit_event
from tests.audits import NOON

ID = build_audit_id(NOON, "0123456789abcdef")


def built(access: Access, reader: Reader) -> dict[str, Any]:
    """The AuditEvent as it is sent, after both validators have taken it."""
    event = build_audit_event(AuditEntry(id=ID, time=NOON, reader=reader, access=access))
    sent: dict[str, Any] = json.loads(msgspec.json.encode(event))
    AuditEvent.model_validate(sent)
    assert list(find_issues(sent, "AuditEvent")) == []
    return sent


def test_an_event_says_who_when_what_and_how_it_ended() -> None:
    access = build_access(AccessKind.ROWS, ["Observation/o1", "Observation/o2"])
    sent = built(access, Reader(sender="north", principal="CN=north", user="nurse"))
    assert (sent["id"], sent["recorded"]) == (ID, "2026-03-02T12:00:00.123Z")
    assert (sent["action"], sent["outcome"]) == ("R", "0")
    assert (sent["type"]["code"], sent["subtype"][0]["code"]) == ("rest", "search-type")
    person, system = sent["agent"]
    assert (person["who"]["identifier"]["value"], person["requestor"]) == ("nurse", True)
    assert system["who"]["identifier"]["value"] == "north"
    assert (system["altId"], system["requestor"]) == ("CN=north", False)
    assert [each.get("what", {}).get("reference") for each in sent["entity"]] == [
        "Observation/o1",
        "Observation/o2",
        None,
    ]
    assert sent["entity"][-1]["detail"] == [{"type": "resources", "valueString": "2"}]
    assert is_id(sent["id"])


def test_an_answer_is_an_export_of_its_delivery() -> None:
    access = build_access(AccessKind.DELIVERY_ANSWER, ["Patient/p1"], delivery="d1")
    sent = built(access, Reader(sender="north"))
    assert (sent["type"]["code"], "subtype" in sent) == ("110106", False)
    patient, delivery = sent["entity"]
    assert patient["role"]["display"] == "Patient"
    assert delivery["what"]["identifier"]["value"] == "d1"
    (agent,) = sent["agent"]
    assert agent["requestor"] is True


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "0"), (304, "0"), (404, "4"), (412, "4"), (503, "8"), (None, None)],
)
def test_the_outcome_follows_from_the_status(status: int | None, outcome: str | None) -> None:
    access = Access(kind=AccessKind.ROW, action=AccessAction.UPDATE, status=status)
    assert built(access, Reader()).get("outcome") == outcome


@pytest.mark.parametrize(("kind", "action"), list(product(AccessKind, AccessAction)))
def test_every_kind_and_action_is_an_event(kind: AccessKind, action: AccessAction) -> None:
    sent = built(build_access(kind, [], action=action, type_="Goal"), Reader())
    assert sent["action"] == str(action)[0].upper()
    assert sent["agent"][0]["who"]["display"] == "the holder of a function key"


NAMES = st.none() | st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20
)


@given(
    readers=st.builds(Reader, sender=NAMES, principal=NAMES, key=NAMES, user=NAMES),
    names=st.lists(
        st.sampled_from(["Patient", "Patient/p1", "Goal/g.1", "Resource", "Basic/-"]), max_size=30
    ),
    delivery=st.none() | st.just("d"),
)
def test_whoever_asked_for_whatever_the_event_is_valid(
    readers: Reader, names: list[str], delivery: str | None
) -> None:
    sent = built(build_access(AccessKind.CONTENT, names, delivery=delivery), readers)
    assert sum(agent["requestor"] for agent in sent["agent"]) == 1
