"""Resources, bundles and requests for the FHIR server of the laptop."""

import base64
import json

FHIR_JSON = {"Content-Type": "application/fhir+json"}
MRN = "http://hospital.example/mrn"
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
ACTIVATE = [{"op": "add", "path": "/active", "value": True}]


def patient(id=None, mrn=None, **more):
    resource = {"resourceType": "Patient", **({"id": id} if id else {}), **more}
    return resource | ({"identifier": [{"system": MRN, "value": mrn}]} if mrn else {})


def condition(subject, **more):
    return {"resourceType": "Condition", "subject": {"reference": subject}, **more}


def entry(method, url, resource=None, full_url=None, **conditions):
    return {
        **({"fullUrl": full_url} if full_url else {}),
        **({"resource": resource} if resource else {}),
        "request": {"method": method, "url": url, **conditions},
    }


def json_patch(operations):
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}


def bundle(kind, *entries):
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


async def send(fhir, kind, *entries, status=200):
    response = await fhir.post("", json=bundle(kind, *entries))
    assert response.status_code == status, response.text
    return response.json()


def statuses(reply):
    return [item["response"]["status"] for item in reply["entry"]]


def is_outcome(response, status):
    assert response.headers["Content-Type"].startswith("application/fhir+json")
    return response.status_code == status and response.json()["resourceType"] == "OperationOutcome"


async def follow(fhir, url):
    """Return the entries of all pages."""
    entries = []
    while url:
        page = (await fhir.get(url)).json()
        entries += page.get("entry", [])
        url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    return entries


async def ids(fhir, search):
    response = await fhir.get(search)
    assert response.status_code == 200, response.text
    return [item["resource"]["id"] for item in response.json().get("entry", [])]
