"""What HAPI's server answers: the lines of docs/fhir-servers.md that say `run`.

A later version that answers otherwise fails here, and the page is to be changed with the test.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

pytestmark = pytest.mark.hapi

Entry = dict[str, Any]

MARK = "http://example.org/mark"
KINDS = pytest.mark.parametrize("kind", ["batch", "transaction"])


def new_id() -> str:
    return f"p-{uuid4()}"


def put(id_: str, family: str, mark: str = "", **request: str) -> Entry:
    resource: Entry = {"resourceType": "Patient", "id": id_, "name": [{"family": family}]}
    if mark:
        resource["meta"] = {"extension": [{"url": MARK, "valueString": mark}]}
    return {"resource": resource, "request": {"method": "PUT", "url": f"Patient/{id_}", **request}}


def delete(id_: str, **request: str) -> Entry:
    return {"request": {"method": "DELETE", "url": f"Patient/{id_}", **request}}


def patch(id_: str, *operations: Entry, **request: str) -> Entry:
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    binary = {
        "resourceType": "Binary",
        "contentType": "application/json-patch+json",
        "data": data,
    }
    return {
        "resource": binary,
        "request": {"method": "PATCH", "url": f"Patient/{id_}", **request},
    }


def create_if_none(value: str) -> Entry:
    system = "http://example.org/mrn"
    resource = {"resourceType": "Patient", "identifier": [{"system": system, "value": value}]}
    condition = f"identifier={system}|{value}"
    request = {"method": "POST", "url": "Patient", "ifNoneExist": condition}
    return {"fullUrl": f"urn:uuid:{uuid4()}", "resource": resource, "request": request}


def post(http: httpx.Client, kind: str, *entries: Entry) -> httpx.Response:
    body = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
    return http.post("", json=body)


def responses(answer: httpx.Response) -> list[Entry]:
    assert answer.status_code == 200, answer.text
    return [entry["response"] for entry in answer.json()["entry"]]


def statuses(answer: httpx.Response) -> list[int]:
    return [int(response["status"][:3]) for response in responses(answer)]


def write(http: httpx.Client, id_: str, *families: str) -> None:
    for family in families:
        responses(post(http, "batch", put(id_, family)))


def read(http: httpx.Client, id_: str) -> Entry:
    found: Entry = http.get(f"Patient/{id_}").raise_for_status().json()
    return found


@KINDS
def test_a_first_put_is_201_a_later_one_200_and_the_etag_is_a_bare_version(
    http: httpx.Client, kind: str
) -> None:
    id_ = new_id()
    first, second = (responses(post(http, kind, put(id_, family)))[0] for family in ("One", "Two"))
    place = f"Patient/{id_}/_history"
    assert first["status"] == "201 Created"
    assert second["status"] == "200 OK"
    assert (first["location"], first["etag"]) == (f"{place}/1", "1")
    assert (second["location"], second["etag"]) == (f"{place}/2", "2")
    assert ("lastModified" in first, "lastModified" in second) == (True, False)


def test_another_version_than_if_match_says_is_409_for_its_entry_of_a_batch(
    http: httpx.Client,
) -> None:
    id_ = new_id()
    write(http, id_, "One", "Two")
    answer = post(http, "batch", put(id_, "Three", ifMatch='W/"1"'), put(new_id(), "Good"))
    assert statuses(answer) == [409, 201]
    [issue] = responses(answer)[0]["outcome"]["issue"]
    assert "HAPI-0989" in issue["diagnostics"]
    assert read(http, id_)["name"] == [{"family": "Two"}]


def test_another_version_than_if_match_says_is_409_for_the_whole_transaction(
    http: httpx.Client,
) -> None:
    id_, other = new_id(), new_id()
    write(http, id_, "One", "Two")
    answer = post(http, "transaction", put(id_, "Three", ifMatch='W/"1"'), put(other, "Good"))
    assert answer.status_code == 409
    assert "HAPI-0989" in answer.json()["issue"][0]["diagnostics"]
    assert http.get(f"Patient/{other}").status_code == 404


@KINDS
def test_the_version_that_if_match_says_is_updated(http: httpx.Client, kind: str) -> None:
    id_ = new_id()
    write(http, id_, "One", "Two")
    assert statuses(post(http, kind, put(id_, "Three", ifMatch='W/"2"'))) == [200]


@KINDS
def test_if_match_does_not_keep_a_put_from_creating(http: httpx.Client, kind: str) -> None:
    assert statuses(post(http, kind, put(new_id(), "One", ifMatch='W/"1"'))) == [201]


def test_if_match_on_a_deleted_resource_counts_the_deletion_as_a_version(
    http: httpx.Client,
) -> None:
    id_ = new_id()
    write(http, id_, "One")
    assert statuses(post(http, "batch", delete(id_))) == [204]
    assert statuses(post(http, "batch", put(id_, "Two", ifMatch='W/"1"'))) == [409]
    answer = post(http, "batch", put(id_, "Two", ifMatch='W/"2"'))
    assert statuses(answer) == [201]
    assert responses(answer)[0]["etag"] == "3"


@KINDS
def test_if_match_on_a_delete_is_not_read(http: httpx.Client, kind: str) -> None:
    id_ = new_id()
    write(http, id_, "One", "Two")
    assert statuses(post(http, kind, delete(id_, ifMatch='W/"1"'))) == [204]
    assert http.get(f"Patient/{id_}").status_code == 410


def test_if_none_match_on_a_put_is_not_read(http: httpx.Client) -> None:
    id_ = new_id()
    write(http, id_, "One")
    assert statuses(post(http, "batch", put(id_, "Two", ifNoneMatch="*"))) == [200]
    assert read(http, id_)["meta"]["versionId"] == "2"


def test_identical_content_makes_no_version_and_another_mark_does(http: httpx.Client) -> None:
    id_ = new_id()
    marks = ["one", "one", "two", ""]
    answers = [responses(post(http, "batch", put(id_, "Same", mark)))[0] for mark in marks]
    assert [answer["etag"] for answer in answers] == ["1", "1", "2", "3"]


def test_an_extension_of_meta_is_kept_and_replaced_and_dropped_with_the_resource(
    http: httpx.Client,
) -> None:
    id_ = new_id()
    for mark in ("one", "two"):
        post(http, "batch", put(id_, "Same", mark))
    assert read(http, id_)["meta"]["extension"] == [{"url": MARK, "valueString": "two"}]
    post(http, "batch", put(id_, "Same"))
    assert "extension" not in read(http, id_)["meta"]


def test_a_json_patch_reaches_the_extension_of_meta_and_heeds_if_match(
    http: httpx.Client,
) -> None:
    id_ = new_id()
    write(http, id_, "One")
    mark = [{"url": MARK, "valueString": "patched"}]
    operation = {"op": "add", "path": "/meta/extension", "value": mark}
    assert statuses(post(http, "batch", patch(id_, operation, ifMatch='W/"1"'))) == [200]
    assert read(http, id_)["meta"]["extension"] == mark
    name = {"op": "replace", "path": "/name/0/family", "value": "Two"}
    assert statuses(post(http, "batch", patch(id_, name))) == [200]
    assert read(http, id_)["meta"]["extension"] == mark
    assert statuses(post(http, "batch", patch(id_, name, ifMatch='W/"1"'))) == [409]
    assert post(http, "transaction", patch(id_, name, ifMatch='W/"1"')).status_code == 409
    assert statuses(post(http, "batch", patch(new_id(), name))) == [404]


@pytest.mark.parametrize("elements", ["meta", "id,meta"])
def test_a_search_by_ids_tells_the_metas_with_their_extensions(
    http: httpx.Client, elements: str
) -> None:
    ids = [new_id() for _ in range(3)]
    post(http, "batch", *(put(id_, "One", "mark") for id_ in ids[:2]))
    query = {"_id": ",".join(ids), "_elements": elements}
    found = [each["resource"] for each in http.get("Patient", params=query).json()["entry"]]
    assert sorted(each["id"] for each in found) == sorted(ids[:2])
    for each in found:
        assert each.keys() == {"resourceType", "id", "meta"}
        assert each["meta"]["extension"] == [{"url": MARK, "valueString": "mark"}]
        assert each["meta"]["tag"][0]["code"] == "SUBSETTED"


def test_a_search_inside_a_batch_tells_whole_resources_whatever_elements_says(
    http: httpx.Client,
) -> None:
    id_ = new_id()
    write(http, id_, "One")
    search = {"request": {"method": "GET", "url": f"Patient?_id={id_}&_elements=meta"}}
    [page] = post(http, "batch", search).json()["entry"]
    assert page["resource"]["entry"][0]["resource"]["name"] == [{"family": "One"}]


def test_the_history_tells_a_deletion_without_a_resource(http: httpx.Client) -> None:
    id_ = new_id()
    write(http, id_, "One")
    post(http, "batch", delete(id_))
    history = http.get(f"Patient/{id_}/_history").json()["entry"]
    assert [each["request"]["method"] for each in history] == ["DELETE", "POST"]
    assert ["resource" in each for each in history] == [False, True]


def test_a_search_result_is_repeated_for_a_minute_unless_the_client_says_no_cache(
    http: httpx.Client,
) -> None:
    id_, query = new_id(), {"family": f"f{uuid4().hex}"}
    old = {"cache-control": ""}
    assert "entry" not in http.get("Patient", params=query, headers=old).json()
    write(http, id_, query["family"])
    assert "entry" not in http.get("Patient", params=query, headers=old).json()
    assert len(http.get("Patient", params=query).json()["entry"]) == 1


def test_equal_conditional_creates_of_a_transaction_are_one_resource_and_one_answer(
    http: httpx.Client,
) -> None:
    value = uuid4().hex
    answer = post(
        http, "transaction", create_if_none(value), create_if_none(value), put(new_id(), "Other")
    )
    assert statuses(answer) == [201, 201]


def test_equal_conditional_creates_of_a_batch_are_one_resource_and_two_answers(
    http: httpx.Client,
) -> None:
    value = uuid4().hex
    answer = post(http, "batch", create_if_none(value), create_if_none(value))
    assert statuses(answer) == [201, 200]
    first, second = (each["location"] for each in responses(answer))
    assert first == second


def create_unless_named(name: str, condition: str) -> Entry:
    resource = {"resourceType": "Organization", "name": name}
    request = {"method": "POST", "url": "Organization", "ifNoneExist": condition}
    return {"fullUrl": f"urn:uuid:{uuid4()}", "resource": resource, "request": request}


def test_a_condition_that_is_no_identifier_is_500_in_a_transaction_without_its_type(
    http: httpx.Client,
) -> None:
    name = uuid4().hex
    bare = create_unless_named(name, f"name:exact={name}")
    assert post(http, "transaction", bare).status_code == 500
    typed = create_unless_named(name, f"Organization?name:exact={name}")
    assert statuses(post(http, "transaction", typed)) == [201]


@KINDS
def test_a_criterion_without_a_value_is_ignored(http: httpx.Client, kind: str) -> None:
    first, again = create_if_none(value := new_id()), create_if_none(value)
    again["request"]["ifNoneExist"] += "&family="
    assert statuses(post(http, kind, first)) == [201]
    assert statuses(post(http, kind, again)) == [200]


@KINDS
@pytest.mark.parametrize("url", ["ValueSet/$lookup", "Patient/_search"])
def test_what_an_operation_is_sent_with_is_stored(http: httpx.Client, kind: str, url: str) -> None:
    code = {"name": "code", "valueCode": "1"}
    parameters = {"resourceType": "Parameters", "parameter": [code]}
    asked = {"resource": parameters, "request": {"method": "POST", "url": url}}
    assert statuses(post(http, kind, asked)) == [201]


@KINDS
def test_a_conditional_delete_is_taken_in_both_kinds(http: httpx.Client, kind: str) -> None:
    condition = f"Patient?identifier={new_id()}"
    asked = {"request": {"method": "DELETE", "url": condition}}
    assert statuses(post(http, kind, asked)) == [204]


def test_a_link_to_a_placeholder_that_the_request_does_not_bring_is_refused(
    http: httpx.Client,
) -> None:
    entry = put(new_id(), "One")
    entry["resource"]["managingOrganization"] = {"reference": f"urn:uuid:{uuid4()}"}
    answer = http.put(entry["request"]["url"], json=entry["resource"])
    assert answer.status_code == 400
    assert "HAPI-0505" in answer.text


def test_an_unknown_element_is_dropped_without_a_word(http: httpx.Client) -> None:
    id_ = new_id()
    entry = put(id_, "One")
    entry["resource"]["noSuchElement"] = "x"
    assert statuses(post(http, "batch", entry)) == [201]
    assert "noSuchElement" not in read(http, id_)


@pytest.mark.parametrize("element", [{"gender": "nobody"}, {"birthDate": "1970-13-45"}])
def test_a_value_that_does_not_parse_refuses_the_whole_batch(
    http: httpx.Client, element: Entry
) -> None:
    entry, good = put(new_id(), "One"), new_id()
    entry["resource"] |= element
    assert post(http, "batch", entry, put(good, "Good")).status_code == 400
    assert http.get(f"Patient/{good}").status_code == 404


def test_an_entry_without_a_request_is_500_for_the_whole_batch(http: httpx.Client) -> None:
    entry = {"resource": put(new_id(), "One")["resource"]}
    assert post(http, "batch", entry, put(new_id(), "Good")).status_code == 500


def test_an_id_of_digits_alone_is_refused(http: httpx.Client) -> None:
    assert statuses(post(http, "batch", put(str(uuid4().int)[:12], "One"))) == [400]


def test_the_id_of_the_address_is_taken_where_the_resource_has_another(
    http: httpx.Client,
) -> None:
    entry = put(new_id(), "One")
    entry["resource"]["id"] = new_id()
    assert statuses(post(http, "batch", entry)) == [201]
    assert http.get(entry["request"]["url"]).status_code == 200


def test_links_must_lead_somewhere_and_what_they_lead_to_cannot_be_deleted(
    http: httpx.Client,
) -> None:
    patient, id_ = new_id(), new_id()
    resource = {
        "resourceType": "Observation",
        "id": id_,
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": f"Patient/{patient}"},
        "issued": "2020-01-01T10:00:00.230Z",
    }
    entry = {"resource": resource, "request": {"method": "PUT", "url": f"Observation/{id_}"}}
    assert statuses(post(http, "batch", entry)) == [400]
    write(http, patient, "One")
    assert statuses(post(http, "batch", entry)) == [201]
    assert http.get(f"Observation/{id_}").json()["issued"] == resource["issued"]
    assert statuses(post(http, "batch", delete(patient))) == [409]


def test_a_conditional_reference_is_stored_resolved(http: httpx.Client) -> None:
    value, id_ = uuid4().hex, new_id()
    [created] = responses(post(http, "batch", create_if_none(value)))
    resource = {
        "resourceType": "Observation",
        "id": id_,
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": f"Patient?identifier=http://example.org/mrn|{value}"},
    }
    entry = {"resource": resource, "request": {"method": "PUT", "url": f"Observation/{id_}"}}
    assert statuses(post(http, "batch", entry)) == [201]
    stored = http.get(f"Observation/{id_}").json()["subject"]["reference"]
    assert stored == created["location"].partition("/_history")[0]


def test_a_link_to_another_server_is_refused(http: httpx.Client) -> None:
    entry = put(new_id(), "One")
    elsewhere = "https://elsewhere.example/fhir/Organization/1"
    entry["resource"]["managingOrganization"] = {"reference": elsewhere}
    answer = post(http, "batch", entry)
    assert statuses(answer) == [400]
    assert "HAPI-0507" in json.dumps(responses(answer))


def test_a_bundle_may_have_more_than_500_entries(http: httpx.Client) -> None:
    entries = [delete(new_id()) for _ in range(501)]
    assert statuses(post(http, "batch", *entries)) == [204] * 501


def test_a_read_that_fails_does_not_fail_its_transaction(http: httpx.Client) -> None:
    reading = {"request": {"method": "GET", "url": f"Patient/{new_id()}"}}
    assert statuses(post(http, "transaction", put(new_id(), "One"), reading)) == [201, 404]


def test_a_read_that_finds_nothing_has_the_code_exception(http: httpx.Client) -> None:
    reading = {"request": {"method": "GET", "url": f"Patient/{new_id()}"}}
    [said] = responses(post(http, "batch", reading))
    assert (said["status"], said["outcome"]["issue"][0]["code"]) == ("404 Not Found", "exception")


def test_a_head_is_refused(http: httpx.Client) -> None:
    id_ = new_id()
    write(http, id_, "One")
    head = {"request": {"method": "HEAD", "url": f"Patient/{id_}"}}
    assert statuses(post(http, "batch", head)) == [400]


def test_tags_of_successive_versions_are_merged(http: httpx.Client) -> None:
    id_ = new_id()
    for code in ("a", "b"):
        entry = put(id_, "One")
        entry["resource"]["meta"] = {"tag": [{"system": "http://example.org", "code": code}]}
        assert statuses(post(http, "batch", entry)) in ([201], [200])
    assert {tag["code"] for tag in read(http, id_)["meta"]["tag"]} == {"a", "b"}


@pytest.mark.parametrize(
    ("spelled", "status"), [('W/"1"', 200), ('"1"', 200), ("1", 200), ("W/1", 500)]
)
def test_if_match_is_read_in_three_spellings(http: httpx.Client, spelled: str, status: int) -> None:
    id_ = new_id()
    write(http, id_, "One")
    assert statuses(post(http, "batch", put(id_, "Two", ifMatch=spelled))) == [status]


async def test_of_writes_at_once_that_name_one_version_one_is_written(hapi_url: str) -> None:
    id_ = new_id()
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:

        async def write_once(family: str, **request: str) -> int:
            body = {
                "resourceType": "Bundle",
                "type": "batch",
                "entry": [put(id_, family, **request)],
            }
            [status] = statuses(await http.post(hapi_url, json=body))
            return status

        assert await write_once("One") == 201
        answers = await asyncio.gather(*(write_once(f"F{n}", ifMatch='W/"1"') for n in range(8)))
        assert sorted(answers) == [200] + [409] * 7
        found = await http.get(f"{hapi_url}/Patient/{id_}")
        assert found.json()["meta"]["versionId"] == "2"


def test_hard_delete_is_a_parameter_that_is_not_read(http: httpx.Client) -> None:
    id_ = new_id()
    write(http, id_, "One")
    assert http.delete(f"Patient/{id_}", params={"hardDelete": "true"}).status_code == 200
    assert http.get(f"Patient/{id_}").status_code == 410
    assert http.get(f"Patient/{id_}/_history/1").status_code == 200
