"""Is the envelope sound, and what does each entry ask for?"""

from __future__ import annotations

import base64
import json
import re
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Issue, Rejected
from integration.core.model import DeliveryRequest
from integration.fhir import bundle
from integration.fhir.entries import MAX_ISSUES, Contents
from tests.randomness import limit_examples

POST = DeliveryRequest("POST")
PATIENT = {"resourceType": "Patient"}
MARKER = "Zzyzx"

# A path as https://hl7.org/fhir/R4/operationoutcome-definitions.html#OperationOutcome.issue.expression
PATH = re.compile(r"[A-Za-z]+(\[\d+\])?(\.[A-Za-z]+(\[\d+\])?)*")


def entry(method: Any, url: Any, resource: Any = None, **request: Any) -> dict[str, Any]:
    shape: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    return shape if resource is None else {**shape, "resource": resource}


def as_bundle(*entries: Any, kind: Any = "batch") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def read(body: Any, received: DeliveryRequest = POST) -> Contents:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return bundle.read(data, received)


def catch_refusal(body: Any, received: DeliveryRequest = POST) -> Rejected:
    with pytest.raises(Rejected) as caught:
        read(body, received)
    return caught.value


def issue(body: Any, received: DeliveryRequest = POST) -> Issue:
    """The only issue."""
    (found,) = catch_refusal(body, received).issues
    return found


# -- not a FHIR resource -------------------------------------------------------------------------

BODIES = [
    ("nothing", b"", "required", "empty"),
    ("blanks", b" \r\n\t", "required", "empty"),
    ("no JSON", b"<Bundle/>", "invalid", "not JSON: line 1, column 1"),
    ("JSON that ends too early", b'{"resourceType": "Bund', "invalid", "early"),
    ("a UTF-8 byte order mark", b"\xef\xbb\xbf ", "required", "empty"),
    ("UTF-16", '{"a": 1}'.encode("utf-16"), "invalid", "byte order mark"),
    ("Latin-1", '{"a": "ü"}'.encode("latin-1"), "invalid", "not UTF-8"),
    ("a list", b"[]", "structure", "a JSON object"),
    ("a string", b'"Bundle"', "structure", "a JSON object"),
    ("null", b"null", "structure", "a JSON object"),
    ("no resource type", b"{}", "required", "resourceType is missing"),
    ("an unknown resource type", {"resourceType": "Patiant"}, "value", "resource type of FHIR R4"),
    ("a resource type of R5", {"resourceType": "ActorDefinition"}, "value", "FHIR R4"),
    ("a resource type that is no text", {"resourceType": ["Patient"]}, "value", "FHIR R4"),
    ("too deep a resource", b'{"resourceType":"Basic","a":' + b"[" * 9000, "invalid", "100 levels"),
]


@pytest.mark.parametrize(
    ("body", "code", "text"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES]
)
def test_a_body_that_is_no_resource_is_refused(body: Any, code: str, text: str) -> None:
    found = issue(body)
    assert found.code == code
    assert text in found.text
    assert catch_refusal(body).status == 400


@pytest.mark.parametrize("body", [case[1] for case in BODIES], ids=[case[0] for case in BODIES])
def test_an_issue_names_its_element_by_path_or_not_at_all(body: Any) -> None:
    expression = issue(body).expression
    assert expression is None or PATH.fullmatch(expression)


@pytest.mark.parametrize("body", [case[1] for case in BODIES], ids=[case[0] for case in BODIES])
def test_the_text_of_an_issue_reads_as_a_sentence(body: Any) -> None:
    assert "the body is the " not in issue(body).text


def test_a_utf_8_byte_order_mark_is_ignored() -> None:
    assert read(b"\xef\xbb\xbf" + json.dumps(PATIENT).encode()).entries[0].method == "POST"


TWICE = [
    (b'{"resourceType":"Bundle","type":"batch","entry":[],"entry":[]}', "Bundle.entry"),
    (b'{"resourceType":"Bundle","type":"batch","type":"transaction"}', "Bundle.type"),
    (
        b'{"resourceType":"Bundle","type":"batch","entry":[{"resource":'
        b'{"resourceType":"Basic","subject":{},"subject":{}}}]}',
        "Bundle.entry[0].resource.subject",
    ),
    (b'{"resourceType":"Patient","Zzyzx_1":1,"Zzyzx_1":2}', "Patient"),
    (b'{"resourceType":"Patient","id":"1","\\u0069d":"2"}', "Patient.id"),
]


@pytest.mark.parametrize(("body", "place"), TWICE)
def test_a_name_that_occurs_twice_in_an_object_refuses_the_delivery(
    body: bytes, place: str
) -> None:
    found = issue(body)
    assert (found.code, found.expression) == ("invalid", place)
    assert catch_refusal(body).status == 400


def test_a_name_that_occurs_twice_in_a_patch_is_refused() -> None:
    body = b'[{"op":"remove","path":"/name","path":"/id"}]'
    received = DeliveryRequest("PATCH", type="Patient", id="1", format="json-patch")
    assert issue(body, received).expression == "[0].path"
    binary = {**BINARY, "data": base64.b64encode(body).decode()}
    found = read(as_bundle(entry("PATCH", "Patient/1", binary), GROUP)).entries[0].refusal
    assert found is not None
    assert found.expression == "Bundle.entry[0].resource.data[0].path"


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(("levels", "taken"), [(99, True), (100, False)])
def test_a_resource_is_nested_100_levels_at_most(levels: int, taken: bool) -> None:
    body = {"resourceType": "Basic", "extension": nested(levels)}
    if taken:
        assert read(body).kind == "resource"
    else:
        assert issue(body).code == "too-long"


def test_a_deep_resource_in_a_bundle_is_refused() -> None:
    deep = {"resourceType": "Basic", "extension": nested(100)}
    assert issue(as_bundle(entry("POST", "Basic", deep))).code == "too-long"


def test_a_hundred_thousand_brackets_are_refused_at_once() -> None:
    began = time.perf_counter()
    assert issue(b'{"resourceType":"Bundle","entry":' + b"[" * 100_000).code == "invalid"
    assert time.perf_counter() - began < 1


# -- the bundle ----------------------------------------------------------------------------------

NOT_CARRIED = [
    "batch-response",
    "transaction-response",
    "Batch",
    "",
    7,
    ["batch"],
]


@pytest.mark.parametrize("kind", NOT_CARRIED)
def test_a_bundle_of_another_type_is_refused_by_its_type(kind: Any) -> None:
    error = catch_refusal(as_bundle(entry("POST", "Patient", PATIENT), kind=kind))
    assert error.status == 422
    assert error.issues[0].code == "not-supported"
    assert error.issues[0].expression == "Bundle.type"
    assert len(error.issues[0].text.split()) > 5


def test_a_bundle_without_a_type_is_refused() -> None:
    found = issue({"resourceType": "Bundle", "entry": [entry("POST", "Patient", PATIENT)]})
    assert (found.code, found.expression) == ("required", "Bundle.type")


@pytest.mark.parametrize(
    "body",
    [
        as_bundle(*[entry("DELETE", f"Patient/{n}") for n in range(3)]),
        {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": PATIENT}] * 3},
        {"resourceType": "Bundle", "type": "transaction", "entry": [{}] * 3},
        {"resourceType": "Bundle", "type": "history", "entry": [None] * 3},
    ],
)
def test_a_delivery_has_as_many_entries_as_are_allowed_and_no_more(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    with pytest.raises(Rejected, match="more than 2 entries") as caught:
        bundle.read(data, POST, 2)
    assert caught.value.status == 413
    if body["type"] in ("batch", "collection"):
        assert len(bundle.read(data, POST, 3).entries) == 3


@pytest.mark.parametrize("kind", ["batch", "history", "document"])
def test_more_entries_than_are_allowed_are_not_built_to_be_counted(kind: str) -> None:
    body = b'{"resourceType":"Bundle","type":"%s","entry":[%s]}'
    body %= kind.encode(), b",".join([b"{}"] * 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(Rejected, match="more than 1000 entries"):
            bundle.read(body, POST, 1_000)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(body) / 4


def test_where_there_may_be_too_many_entries_each_must_be_an_object() -> None:
    body = {"resourceType": "Bundle", "type": "batch", "entry": [{}, *[7] * 5]}
    with pytest.raises(Rejected, match="must be an object") as caught:
        bundle.read(json.dumps(body).encode(), POST, 4)
    assert caught.value.status == 400
    with pytest.raises(Rejected) as caught:  # each for itself
        bundle.read(json.dumps(body).encode(), POST, 100)
    assert len(caught.value.issues) == 6


def test_what_is_refused_since_azure_refuses_it_says_so() -> None:
    """An operation and a conditional delete in a transaction, as the specification's own example
    has them: https://hl7.org/fhir/R4/bundle-transaction.html"""
    asked = [
        entry("POST", "ValueSet/$lookup", PATCH),
        entry("DELETE", "Patient?identifier=123456"),
        entry("POST", "Patient/_search"),
    ]
    body = {"resourceType": "Bundle", "type": "transaction", "entry": asked}
    with pytest.raises(Rejected) as caught:
        bundle.read(json.dumps(body).encode(), POST)
    assert [issue.expression for issue in caught.value.issues] == [
        f"Bundle.entry[{n}].request.url" for n in range(3)
    ]
    assert all("Azure's FHIR service" in issue.text for issue in caught.value.issues)


@pytest.mark.parametrize("entries", [None, [], {}, "x"])
def test_a_bundle_without_entries_is_refused(entries: Any) -> None:
    found = issue({"resourceType": "Bundle", "type": "batch", "entry": entries})
    assert (found.code, found.expression) == ("required", "Bundle.entry")


# -- an entry ------------------------------------------------------------------------------------

OBSERVATION = {"resourceType": "Observation"}
PATCH = {"resourceType": "Parameters", "parameter": [{"name": "operation"}]}
BINARY = {"resourceType": "Binary", "contentType": "application/json-patch+json"}

ENTRIES = [
    ("no object", 7, "structure", ""),
    ("null", None, "structure", ""),
    ("no request", {"resource": PATIENT}, "required", ""),
    ("a request that is a list", {"request": [], "resource": PATIENT}, "required", ""),
    ("no method", {"request": {"url": "Patient"}}, "value", ".request.method"),
    ("an unknown method", entry("MERGE", "Patient/1"), "value", ".request.method"),
    ("a method in lower case", entry("post", "Patient", PATIENT), "value", ".request.method"),
    ("a method that is no text", entry(["POST"], "Patient"), "value", ".request.method"),
    ("a read of no type", entry("GET", "metadata"), "value", ".request.url"),
    ("a read of everything", entry("GET", "?_type=Patient"), "value", ".request.url"),
    ("a read of another host", entry("GET", "https://a.example/Patient/1"), "value", ".request.url"),
    ("a read of a way up", entry("GET", "Patient/../Group/1"), "value", ".request.url"),
    ("a read of a compartment", entry("GET", "Patient/1/Observation"), "value", ".request.url"),
    ("a read of a type's history", entry("GET", "Patient/_history"), "value", ".request.url"),
    ("a read of no version", entry("GET", "Patient/1/_history/a_b"), "value", ".request.url"),
    ("a read of a part of a version", entry("GET", "Patient/1/_history/2/x"), "value", ".request.url"),
    ("a read of an operation", entry("GET", "Patient/1/$everything"), "not-supported", ".request.url"),
    ("a read of a type's operation", entry("GET", "Patient/$match"), "not-supported", ".request.url"),
    ("a HEAD of an operation", entry("HEAD", "Patient/1/$everything"), "not-supported", ".request.url"),
    ("a search by POST", entry("POST", "Patient/_search"), "not-supported", ".request.url"),
    ("a url without end", entry("GET", f"Patient?name={'a' * 2000}"), "too-long", ".request.url"),
    ("a url of two lines", entry("GET", "Patient?name=a\nb"), "too-long", ".request.url"),
    ("a read with ifNoneExist", entry("GET", "Patient/1", ifNoneExist="a=b"), "value", ".request.ifNoneExist"),
    ("a patch of a type", entry("PATCH", "Patient", PATCH), "value", ".request.url"),
    ("a patch of id and query", entry("PATCH", "Patient/1?a=b", PATCH), "value", ".request.url"),
    ("a patch of everything", entry("PATCH", "Patient?_count=9", PATCH), "not-supported", ".request.url"),
    ("a patch without a document", entry("PATCH", "Patient/1"), "required", ""),
    ("a patch that is a patient", entry("PATCH", "Patient/1", PATIENT), "not-supported", ".resource"),
    ("a patch without operations", entry("PATCH", "Patient/1", {"resourceType": "Parameters"}), "invalid", ".resource.parameter"),
    ("a patch in XML", entry("PATCH", "Patient/1", {**BINARY, "contentType": "application/xml-patch+xml"}), "not-supported", ".resource"),
    ("a JSON patch that is missing", entry("PATCH", "Patient/1", BINARY), "value", ".resource.data"),
    ("a JSON patch that is no base64", entry("PATCH", "Patient/1", {**BINARY, "data": "%"}), "value", ".resource.data"),
    ("a JSON patch that is no JSON", entry("PATCH", "Patient/1", {**BINARY, "data": "QUJD"}), "value", ".resource.data"),
    ("a JSON patch that is no list", entry("PATCH", "Patient/1", {**BINARY, "data": "e30="}), "invalid", ".resource.data"),
    ("no url", {"request": {"method": "POST"}}, "required", ".request.url"),
    ("an empty url", entry("POST", "", PATIENT), "required", ".request.url"),
    ("a url that is no text", entry("POST", 7, PATIENT), "required", ".request.url"),
    ("an absolute url", entry("PUT", "https://a.example/Patient/1", PATIENT), "value", ".request.url"),
    ("a url of another host", entry("PUT", "//a.example/Patient/1", PATIENT), "value", ".request.url"),
    ("a way up", entry("PUT", "../Patient/1", PATIENT), "value", ".request.url"),
    ("a way up inside", entry("PUT", "Patient/../Group/1", PATIENT), "value", ".request.url"),
    ("a way up at the end", entry("DELETE", "Patient/.."), "value", ".request.url"),
    ("a dot for an id", entry("DELETE", "Patient/."), "value", ".request.url"),
    ("a percent", entry("PUT", "Patient/%31", PATIENT), "value", ".request.url"),
    ("a backslash", entry("PUT", "Patient\\1", PATIENT), "value", ".request.url"),
    ("a version", entry("PUT", "Patient/1/_history/2", PATIENT), "value", ".request.url"),
    ("two slashes", entry("PUT", "Patient//1", PATIENT), "value", ".request.url"),
    ("a slash at the end", entry("PUT", "Patient/1/", PATIENT), "value", ".request.url"),
    ("an unknown type", entry("PUT", "Patiant/1", PATIENT), "value", ".request.url"),
    ("a placeholder", entry("PUT", "urn:uuid:0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11", PATIENT), "value", ".request.url"),
    ("an id with a space", entry("PUT", "Patient/a b", PATIENT), "value", ".request.url"),
    ("an id with an underscore", entry("PUT", "Patient/a_b", PATIENT), "value", ".request.url"),
    ("an id of 65 characters", entry("PUT", f"Patient/{'a' * 65}", PATIENT), "value", ".request.url"),
    ("an operation", entry("POST", "Patient/$match", PATIENT), "not-supported", ".request.url"),
    ("a create with an id", entry("POST", "Patient/1", PATIENT), "value", ".request.url"),
    ("a create with a query", entry("POST", "Patient?identifier=1", PATIENT), "value", ".request.url"),
    ("an update of a type", entry("PUT", "Patient", PATIENT), "value", ".request.url"),
    ("an update of id and query", entry("PUT", "Patient/1?a=b", PATIENT), "value", ".request.url"),
    ("a delete of a type", entry("DELETE", "Patient"), "value", ".request.url"),
    ("a delete of id and query", entry("DELETE", "Patient/1?a=b"), "value", ".request.url"),
    ("a delete for good", entry("DELETE", "Patient/1?_hardDelete=true"), "not-supported", ".request.url"),
    ("a delete for good in another spelling", entry("DELETE", "Patient/1?harddelete"), "not-supported", ".request.url"),
    ("a conditional delete for good", entry("DELETE", "Patient?name=a&hardDelete=true"), "not-supported", ".request.url"),
    ("a purge", entry("DELETE", "Patient/1?_purge=true"), "not-supported", ".request.url"),
    ("an update without a history", entry("PUT", "Patient/1?_meta-history=false", PATIENT), "not-supported", ".request.url"),
    ("an update of any name", entry("PUT", "Patient?name=", PATIENT), "value", ".request.url"),
    ("an update of anybody", entry("PUT", "Patient?name", PATIENT), "value", ".request.url"),
    ("an update of the first", entry("PUT", "Patient?_count=1", PATIENT), "not-supported", ".request.url"),
    ("a create unless there is anybody", entry("POST", "Patient", PATIENT, ifNoneExist="identifier="), "value", ".request.ifNoneExist"),
    ("a create unless there is one with half", entry("POST", "Patient", PATIENT, ifNoneExist="identifier=1&name"), "value", ".request.ifNoneExist"),
    ("a create unless there is something", entry("POST", "Patient", PATIENT, ifNoneExist="_count=1"), "value", ".request.ifNoneExist"),
    ("a delete of nothing", entry("DELETE", "Patient?"), "value", ".request.url"),
    ("a delete of whatever", entry("DELETE", "Patient?&="), "value", ".request.url"),
    ("a delete of a hundred", entry("DELETE", "Patient?_count=100"), "not-supported", ".request.url"),
    ("a delete of a hundred of a name", entry("DELETE", "Patient?name=a&_count=100"), "not-supported", ".request.url"),
    ("a delete with what refers to it", entry("DELETE", "Patient?name=a&_revinclude=Observation:subject"), "not-supported", ".request.url"),
    ("a delete with what it refers to", entry("DELETE", "Patient?name=a&_include:iterate=*"), "not-supported", ".request.url"),
    ("a delete that cascades", entry("DELETE", "Patient?name=a&_cascade=delete"), "not-supported", ".request.url"),
    ("a delete that changes others", entry("DELETE", "Patient?name=a&_remove-references=true"), "not-supported", ".request.url"),
    ("a condition that ends early", entry("DELETE", "Patient?name=a#&identifier=a|1"), "value", ".request.url"),
    ("a condition of a create that ends early", entry("POST", "Patient", PATIENT, ifNoneExist="name=a#&identifier=a|1"), "value", ".request.ifNoneExist"),
    ("a delete of any name", entry("DELETE", "Patient?name="), "value", ".request.url"),
    ("a delete with half a criterion", entry("DELETE", "Patient?name=a&identifier="), "value", ".request.url"),
    ("a create without a resource", entry("POST", "Patient"), "required", ""),
    ("an update without a resource", entry("PUT", "Patient/1"), "required", ""),
    ("a resource that is text", entry("PUT", "Patient/1", "x"), "structure", ".resource"),
    ("a resource without a type", entry("PUT", "Patient/1", {"id": "1"}), "required", ".resource"),
    ("a resource of no type", entry("PUT", "Patient/1", {"resourceType": "X"}), "value", ".resource.resourceType"),
    ("a resource of another type", entry("PUT", "Patient/1", OBSERVATION), "invalid", ".resource"),
    ("a resource with another id", entry("PUT", "Patient/1", {**PATIENT, "id": "2"}), "invalid", ".resource.id"),
    ("an id that is no text", entry("PUT", "Patient/1", {**PATIENT, "id": 1}), "invalid", ".resource.id"),
    ("a fullUrl that is no text", {**entry("DELETE", "Patient/1"), "fullUrl": 7}, "value", ".fullUrl"),
    ("an ifMatch that is no text", entry("DELETE", "Patient/1", ifMatch=7), "value", ".request.ifMatch"),
    ("an ifModifiedSince that is no text", entry("GET", "Patient/1", ifModifiedSince=7), "value", ".request.ifModifiedSince"),
    ("an empty ifNoneMatch", entry("PUT", "Patient/1", PATIENT, ifNoneMatch=""), "value", ".request.ifNoneMatch"),
    ("an empty ifNoneExist", entry("POST", "Patient", PATIENT, ifNoneExist=""), "value", ".request.ifNoneExist"),
    ("an update with ifNoneExist", entry("PUT", "Patient/1", PATIENT, ifNoneExist="identifier=1"), "value", ".request.ifNoneExist"),
    ("a delete with ifNoneExist", entry("DELETE", "Patient/1", ifNoneExist="identifier=1"), "value", ".request.ifNoneExist"),
    ("an ifNoneExist without a query", entry("POST", "Patient", PATIENT, ifNoneExist="Patient?"), "value", ".request.ifNoneExist"),
    ("an ifNoneExist of another type", entry("POST", "Patient", PATIENT, ifNoneExist="Group?a=b"), "value", ".request.ifNoneExist"),
]  # fmt: skip


GROUP = entry("PUT", "Group/1", {"resourceType": "Group"})


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(
    ("bad", "code", "where"), [case[1:] for case in ENTRIES], ids=[case[0] for case in ENTRIES]
)
def test_a_bad_entry_is_refused_by_its_place(bad: Any, code: str, where: str, kind: str) -> None:
    body = as_bundle(GROUP, bad, kind=kind)
    found = issue(body) if kind == "transaction" else read(body).entries[1].refusal
    assert found is not None
    assert found.code == code
    assert found.expression == f"Bundle.entry[1]{where}"
    assert len(found.text.split()) >= 3


@pytest.mark.parametrize("bad", [case[1] for case in ENTRIES], ids=[case[0] for case in ENTRIES])
def test_a_bad_entry_of_a_batch_leaves_the_others_as_they_are(bad: Any) -> None:
    first, _, last = read(as_bundle(GROUP, bad, entry("DELETE", "Patient/1"))).entries
    assert (first.refusal, last.refusal) == (None, None)
    assert (first.id, last.position, last.where) == ("1", 2, "Bundle.entry[2]")


def test_a_batch_with_nothing_but_bad_entries_is_refused_whole() -> None:
    error = catch_refusal(as_bundle(*[7] * 50))
    assert error.status == 400
    assert len(error.issues) == MAX_ISSUES


def test_a_transaction_takes_no_conditional_delete_and_a_batch_does() -> None:
    delete = entry("DELETE", "Patient?identifier=1")
    assert issue(as_bundle(delete, kind="transaction")).expression == "Bundle.entry[0].request.url"
    (found,) = read(as_bundle(delete)).entries
    assert (found.id, found.query, found.is_conditional) == (None, "identifier=1", True)


READS = [
    "Patient/1",
    "Patient/1?_elements=name",
    "Patient/1/_history",
    "Patient/1/_history/2",
    "Patient?name=a%20b&_sort=birthdate",
    "Patient",
    "/Patient/1",
]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("url", READS)
def test_a_read_names_no_resource_of_its_own(url: str, method: str, kind: str) -> None:
    write = entry("PUT", "Patient/1", PATIENT)
    requested = entry(method, url, ifNoneMatch='W/"1"', ifModifiedSince="2024-05-06T07:08:09Z")
    found = read(as_bundle(write, requested, kind=kind)).entries[1]
    assert (found.id, found.identity, found.is_conditional, found.is_linkable) == (
        None,
        None,
        False,
        False,
    )
    assert found.if_modified_since == "2024-05-06T07:08:09Z"
    whole = found.read_path if found.query is None else f"{found.read_path}?{found.query}"
    assert whole == url.removeprefix("/")


def test_a_patch_document_is_not_the_resource_that_it_changes() -> None:
    (found,) = read(as_bundle(entry("PATCH", "Patient/1", {**PATCH, "id": "2"}))).entries
    assert (found.id, found.identity) == ("1", "Patient/1")
    (found,) = read(as_bundle(entry("PATCH", "Patient?name=x", {**PATCH, "id": "2"}))).entries
    assert (found.id, found.identity) == (None, None)


def test_a_json_patch_over_http_travels_in_a_binary() -> None:
    requested = DeliveryRequest(
        "PATCH", type="Patient", id="1", format="json-patch", if_match='W/"3"'
    )
    (found,) = read(b'[{"op":"remove","path":"/name"}]', requested).entries
    assert (found.method, found.identity, found.if_match) == ("PATCH", "Patient/1", 'W/"3"')
    assert found.resource == {**BINARY, "data": "W3sib3AiOiJyZW1vdmUiLCJwYXRoIjoiL25hbWUifV0="}


def test_a_fhirpath_patch_over_http_is_parameters() -> None:
    (found,) = read(PATCH, DeliveryRequest("PATCH", type="Patient", id="1")).entries
    assert found.resource == PATCH
    assert catch_refusal(PATIENT, DeliveryRequest("PATCH", type="Patient", id="1")).status == 422


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b"[7]", b"[" * 9000])
def test_a_json_patch_that_is_none_is_refused(body: bytes) -> None:
    assert (
        issue(
            body, DeliveryRequest("PATCH", type="Patient", id="1", format="json-patch")
        ).expression
        is None
    )


def test_all_bad_entries_of_a_transaction_are_reported_together() -> None:
    entries = entry("PUT", "x", PATIENT), entry("POST", "Patient", PATIENT), 7
    bad = as_bundle(*entries, kind="transaction")
    assert [found.expression for found in catch_refusal(bad).issues] == [
        "Bundle.entry[0].request.url",
        "Bundle.entry[2]",
    ]


def test_the_issues_of_a_large_bundle_are_bounded() -> None:
    assert len(catch_refusal(as_bundle(*[7] * 10_000)).issues) == MAX_ISSUES


# -- duplicates ----------------------------------------------------------------------------------


def with_url(full_url: str, position: int) -> dict[str, Any]:
    return {**entry("PUT", f"Patient/{position}", PATIENT), "fullUrl": full_url}


def test_in_a_transaction_a_full_url_may_occur_once() -> None:
    same = "urn:uuid:0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11"
    entries = with_url(same, 0), with_url("urn:x", 1), with_url(same, 2)
    error = catch_refusal(as_bundle(*entries, kind="transaction"))
    assert [(found.code, found.expression) for found in error.issues] == [
        ("duplicate", "Bundle.entry[0].fullUrl"),
        ("duplicate", "Bundle.entry[2].fullUrl"),
    ]


def test_two_writings_of_one_uuid_are_one_full_url() -> None:
    uuid = "0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11"
    both = with_url(f"urn:uuid:{uuid}", 0), with_url(f"urn:uuid:{uuid.upper()}", 1)
    error = catch_refusal(as_bundle(*both, kind="transaction"))
    assert {found.code for found in error.issues} == {"duplicate"}
    first, second = read(as_bundle(*both)).entries
    assert first.refusal is None
    assert second.refusal is not None
    assert second.refusal.code == "duplicate"


def test_a_transaction_must_not_touch_a_resource_twice() -> None:
    twice = as_bundle(entry("DELETE", "Patient/1"), entry("PUT", "Patient/1", PATIENT))
    assert [
        found.expression for found in catch_refusal({**twice, "type": "transaction"}).issues
    ] == [
        "Bundle.entry[0].request.url",
        "Bundle.entry[1].request.url",
    ]


def test_a_batch_may_touch_a_resource_twice() -> None:
    twice = as_bundle(entry("DELETE", "Patient/1"), entry("PUT", "Patient/1", PATIENT))
    assert [item.id for item in read(twice).entries] == ["1", "1"]


def test_the_same_id_of_two_types_is_no_duplicate() -> None:
    both = as_bundle(entry("PUT", "Patient/1", PATIENT), entry("PUT", "Observation/1", OBSERVATION))
    assert len(read({**both, "type": "transaction"}).entries) == 2


# -- what a good entry becomes -------------------------------------------------------------------


def read_one(shape: dict[str, Any]) -> Any:
    (found,) = read(as_bundle(shape)).entries
    return found


def test_an_update_gives_the_resource_the_id_of_its_address() -> None:
    found = read_one(entry("PUT", "Patient/1", PATIENT))
    assert found.resource == {"resourceType": "Patient", "id": "1"}
    assert found.id == "1"


def test_an_update_keeps_an_id_that_agrees() -> None:
    assert read_one(entry("PUT", "Patient/1", {**PATIENT, "id": "1"})).resource["id"] == "1"


def test_a_slash_before_the_address_does_no_harm() -> None:
    assert read_one(entry("PUT", "/Patient/1", PATIENT)).id == "1"


def test_a_slash_after_the_type_does_no_harm() -> None:
    found = read_one(entry("PUT", "Patient/?identifier=a|1", PATIENT))
    assert (found.id, found.query) == (None, "identifier=a|1")
    assert read_one(entry("POST", "Patient/", PATIENT)).method == "POST"


@pytest.mark.parametrize(
    ("method", "url", "identifier", "query"),
    [
        ("PUT", "Patient/1?_format=json", "1", None),
        ("PUT", "Patient/1?_pretty=true&_format=json", "1", None),
        ("DELETE", "Patient/1?_format=json", "1", None),
        ("POST", "Patient?_format=json", None, None),
        ("PUT", "Patient?_format=json&identifier=a", None, "identifier=a"),
    ],
)
def test_how_a_write_is_to_be_answered_is_no_part_of_its_address(
    method: str, url: str, identifier: str | None, query: str | None
) -> None:
    found = read_one(entry(method, url, PATIENT))
    assert (found.id, found.query) == (identifier, query)


def test_a_create_has_no_id_yet() -> None:
    found = read_one(entry("POST", "Patient", {**PATIENT, "id": "theirs"}))
    assert (found.method, found.type, found.id) == ("POST", "Patient", None)
    assert found.identity == "Patient/theirs"


def test_a_delete_has_no_resource() -> None:
    assert read_one(entry("DELETE", "Patient/1", PATIENT)).resource is None


def test_conditions_stay_with_their_entry() -> None:
    found = read_one(entry("PUT", "Patient/1", PATIENT, ifMatch='W/"3"', ifNoneMatch="*"))
    assert (found.if_match, found.if_none_match) == ('W/"3"', "*")
    assert not found.is_conditional


@pytest.mark.parametrize(
    "condition",
    ["identifier=a|b", "?identifier=a|b", "Patient?identifier=a|b", "/Patient?identifier=a|b"],
)
def test_a_conditional_create_keeps_its_query(condition: str) -> None:
    found = read_one(entry("POST", "Patient", PATIENT, ifNoneExist=condition))
    assert found.if_none_exist == "identifier=a|b"
    assert found.is_conditional


def test_a_conditional_update_keeps_its_query() -> None:
    found = read_one(entry("PUT", "Patient?identifier=a|b", PATIENT))
    assert (found.id, found.query, found.is_conditional) == (None, "identifier=a|b", True)


def test_entries_keep_their_order_and_know_their_place() -> None:
    found = read(as_bundle(*[entry("DELETE", f"Patient/{n}") for n in range(3)])).entries
    assert [(item.position, item.where) for item in found] == [
        (0, "Bundle.entry[0]"),
        (1, "Bundle.entry[1]"),
        (2, "Bundle.entry[2]"),
    ]


# -- one resource by its address -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "received", "expression"),
    [
        (OBSERVATION, DeliveryRequest("PUT", type="Patient", id="1"), "resourceType"),
        (
            as_bundle(entry("DELETE", "Patient/1")),
            DeliveryRequest("POST", type="Patient"),
            "resourceType",
        ),
        ({**PATIENT, "id": "2"}, DeliveryRequest("PUT", type="Patient", id="1"), "Patient.id"),
        ({**PATIENT, "id": None}, DeliveryRequest("PUT", type="Patient", id="1"), None),
        ({**PATIENT, "id": "a b"}, POST, "Patient.id"),
        ({**PATIENT, "id": "a" * 65}, POST, "Patient.id"),
        ({**PATIENT, "id": 7}, POST, "Patient.id"),
        ({**PATIENT, "id": ".."}, POST, "Patient.id"),
    ],
)
def test_a_resource_agrees_with_its_address(
    body: Any, received: DeliveryRequest, expression: str | None
) -> None:
    if expression is None:
        assert read(body, received).entries[0].resource == {**PATIENT, "id": "1"}
    else:
        assert issue(body, received).expression == expression


def test_a_put_without_an_id_in_the_resource_gets_the_id_of_its_address() -> None:
    (found,) = read(PATIENT, DeliveryRequest("PUT", type="Patient", id="1")).entries
    assert found.resource == {"resourceType": "Patient", "id": "1"}


def test_a_post_to_a_type_creates_whatever_id_the_resource_has() -> None:
    (found,) = read({**PATIENT, "id": "theirs"}, DeliveryRequest("POST", type="Patient")).entries
    assert (found.method, found.id) == ("POST", None)


def test_a_resource_at_the_base_address_is_updated_by_its_own_id() -> None:
    (found,) = read({**PATIENT, "id": "1"}).entries
    assert (found.method, found.id) == ("PUT", "1")


def test_a_resource_at_the_base_address_without_an_id_is_created() -> None:
    (found,) = read(PATIENT).entries
    assert (found.method, found.id) == ("POST", None)


def test_a_delete_needs_no_body() -> None:
    contents = read(b"", DeliveryRequest("DELETE", type="Patient", id="1", if_match='W/"2"'))
    (found,) = contents.entries
    assert (found.method, found.id, found.resource) == ("DELETE", "1", None)
    assert found.if_match == 'W/"2"'
    assert contents.kind == "resource"


@pytest.mark.parametrize("header", ["identifier=1", "?identifier=1", "Patient?identifier=1"])
def test_a_conditional_create_by_header_stays_conditional(header: str) -> None:
    (found,) = read(PATIENT, DeliveryRequest("POST", type="Patient", if_none_exist=header)).entries
    assert found.if_none_exist == "identifier=1"


@pytest.mark.parametrize("header", ["Group?identifier=1", "Patient?"])
def test_a_condition_over_another_type_is_refused(header: str) -> None:
    assert (
        issue(PATIENT, DeliveryRequest("POST", type="Patient", if_none_exist=header)).expression
        is None
    )


def test_a_condition_is_never_dropped_because_the_resource_has_an_id() -> None:
    received = DeliveryRequest("POST", if_none_exist="identifier=1")
    (found,) = read({**PATIENT, "id": "1"}, received).entries
    assert (found.method, found.if_none_exist) == ("POST", "identifier=1")


# -- nothing of the body in an issue --------------------------------------------------------------

SPOILS = st.sampled_from(
    [
        (),
        ("resource",),
        ("resource", "id"),
        ("resource", "resourceType"),
        ("resource", "name"),
        ("request",),
        ("request", "method"),
        ("request", "url"),
        ("request", "ifMatch"),
        ("request", "ifNoneExist"),
        ("fullUrl",),
    ]
)
VALUES = st.sampled_from(
    [
        MARKER,
        [MARKER],
        {MARKER: MARKER},
        f"Patient/{MARKER}_",
        f"{MARKER}?{MARKER}",
        f"$../{MARKER}",
    ]
)


def plant(shape: dict[str, Any], path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    head, *rest = path
    inner = shape.get(head, {})
    return {**shape, head: plant(inner if isinstance(inner, dict) else {}, tuple(rest), value)}


@limit_examples(200)
@given(
    spoils=st.lists(st.tuples(SPOILS, VALUES), min_size=1, max_size=3),
    kind=st.sampled_from(["batch", "transaction", MARKER]),
    cut=st.one_of(st.none(), st.integers(0, 400)),
    junk=st.sampled_from([b"", MARKER.encode(), b"\xff" + MARKER.encode(), b"[" * 2000]),
)
def test_nothing_of_the_body_is_ever_quoted(
    spoils: list[tuple[tuple[str, ...], Any]], kind: str, cut: int | None, junk: bytes
) -> None:
    good = entry("PUT", "Patient/1", {**PATIENT, "name": [{"family": MARKER}]})
    body = json.dumps(as_bundle(*[plant(good, *spoil) for spoil in spoils], kind=kind)).encode()
    if cut is not None:
        body = body[:cut] + junk
    error = None
    try:
        bundle.read(body, POST)
    except Rejected as found:
        error = found
    if error is not None:
        assert MARKER not in repr(error.issues)
        assert MARKER not in str(error)
        assert error.__cause__ is None


@limit_examples(100)
@given(spoil=SPOILS, value=VALUES)
def test_a_spoilt_entry_never_crashes_the_reader(spoil: tuple[str, ...], value: Any) -> None:
    good = entry("PUT", "Patient/1", PATIENT)
    try:
        contents = read(as_bundle(plant(good, spoil, value)))
    except Rejected:
        return
    assert len(contents.entries) == 1
