"""Patches of one resource, as JSON Patch and FHIRPath Patch."""

import json

import pytest

from tests.local.fhir.calls import ACTIVATE, JSON_PATCH, is_outcome, patient


def operation(kind, path, **parts):
    """One operation of a FHIRPath patch."""
    parameters = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    parameters += [{"name": name, **value} for name, value in parts.items()]
    return {"name": "operation", "part": parameters}


async def test_a_fhirpath_patch_changes_a_resource(fhir):
    await fhir.put("/Patient/a", json=patient("a", "1", birthDate="1984-05-06", active=True))
    operations = [
        operation("replace", "Patient.birthDate", value={"valueDate": "1984-05-07"}),
        operation("delete", "Patient.active"),
        operation(
            "add",
            "Patient",
            name={"valueString": "name"},
            value={"valueHumanName": {"family": "Muster"}},
        ),
        operation(
            "add", "Patient.name[0]", name={"valueString": "given"}, value={"valueString": "Ada"}
        ),
        operation(
            "insert",
            "Patient.name[0].given",
            value={"valueString": "Eva"},
            index={"valueInteger": 0},
        ),
        operation(
            "move",
            "Patient.name[0].given",
            source={"valueInteger": 0},
            destination={"valueInteger": 1},
        ),
        operation(
            "add",
            "Patient",
            name={"valueString": "link"},
            value={
                "part": [
                    {"name": "other", "valueReference": {"reference": "Patient/b"}},
                    {"name": "type", "valueCode": "seealso"},
                ]
            },
        ),
        operation(
            "replace",
            "Patient.identifier.where(value = '1').value",
            value={"valueString": "2"},
        ),
    ]
    body = {"resourceType": "Parameters", "parameter": operations}
    patched = (await fhir.patch("/Patient/a", json=body)).json()
    assert patched["birthDate"] == "1984-05-07"
    assert "active" not in patched
    assert patched["name"] == [{"family": "Muster", "given": ["Ada", "Eva"]}]
    assert patched["link"] == [{"other": {"reference": "Patient/b"}, "type": "seealso"}]
    assert patched["identifier"][0]["value"] == "2"
    assert patched["meta"]["versionId"] == "2"


@pytest.mark.parametrize(
    "bad",
    [
        operation("replace", "Patient.birthDate", value={"valueDate": "1984-05-07"}),
        operation("replace", "Patient.x", value={"valueDate": "1984-05-07"}),
        operation("erase", "Patient.birthDate"),
        operation("delete", "Patient.name.given.single()"),
        operation("insert", "Patient.name", index={"valueInteger": 0}),
        {"name": "other"},
    ],
)
async def test_a_fhirpath_patch_that_cannot_be_applied_changes_nothing(fhir, bad):
    await fhir.put("/Patient/a", json=patient("a"))
    body = {"resourceType": "Parameters", "parameter": [bad]}
    assert is_outcome(await fhir.patch("/Patient/a", json=body), 400)
    assert (await fhir.get("/Patient/a")).json()["meta"]["versionId"] == "1"


async def test_a_json_patch_changes_a_resource_and_no_other_patch_is_known(fhir):
    await fhir.put("/Patient/a", json=patient("a"))
    patched = await fhir.patch("/Patient/a", content=json.dumps(ACTIVATE), headers=JSON_PATCH)
    assert (patched.status_code, patched.json()["active"]) == (200, True)
    broken = await fhir.patch(
        "/Patient/a", content=json.dumps([ACTIVATE[0] | {"path": "/x/y"}]), headers=JSON_PATCH
    )
    assert is_outcome(broken, 400)
    assert is_outcome(await fhir.patch("/Patient/a", json=patient("a")), 400)
