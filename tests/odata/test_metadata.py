"""The service document, and $metadata against the schemas and the converter of OData's makers."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path

import pytest
import xmlschema

from integration.core import decimal_json
from integration.odata.headers import Format
from integration.odata.metadata import build_csdl_json, build_csdl_xml, build_service_document
from integration.odata.model import EntityType, Property, Type
from tests.odata.sets import OBSERVATIONS, ROOT

LOCAL = Path(__file__).parents[2] / "local"
CSDL = LOCAL / "node_modules" / "odata-csdl"

READ_ONLY = EntityType(
    "msemr_location", "msemr_locations", "id", (Property("id", Type.GUID, nullable=False),)
)
TYPES = [OBSERVATIONS, READ_ONLY]

needs_schemas = pytest.mark.skipif(
    not CSDL.is_dir(), reason="odata-csdl is not installed: npm ci --prefix local"
)


@cache
def edmx() -> xmlschema.XMLSchema11:
    return xmlschema.XMLSchema11(CSDL / "schemas" / "edmx.xsd")


def test_the_service_document_lists_the_sets() -> None:
    sets = [
        {"name": "msemr_observations", "kind": "EntitySet", "url": "msemr_observations"},
        {"name": "msemr_locations", "kind": "EntitySet", "url": "msemr_locations"},
    ]
    head = {"@odata.context": f"{ROOT}$metadata"}
    assert build_service_document(TYPES, ROOT, Format()) == {**head, "value": sets}
    assert build_service_document(TYPES, ROOT, Format("none")) == {"value": sets}


@needs_schemas
@pytest.mark.parametrize("types", [TYPES, [READ_ONLY], []])
def test_the_xml_is_valid_by_the_schemas_of_odata(types: list[EntityType]) -> None:
    edmx().validate(build_csdl_xml(types).decode())


@needs_schemas
@pytest.mark.parametrize("types", [TYPES, [READ_ONLY], []])
def test_the_json_is_valid_by_the_schema_of_odata(types: list[EntityType]) -> None:
    script = (
        "const ajv = new (require('ajv'))({strict: false});"
        "const validate = ajv.compile(require('odata-csdl/schemas/csdl.schema.json'));"
        "const valid = validate(JSON.parse(require('fs').readFileSync(0)));"
        "console.log(JSON.stringify(valid ? [] : validate.errors))"
    )
    command = ["node", "--input-type=commonjs", "-e", script]
    wire = decimal_json.encode(build_csdl_json(types))
    done = subprocess.run(
        command, cwd=LOCAL, input=wire, check=True, capture_output=True, timeout=60
    )
    assert json.loads(done.stdout) == []


@needs_schemas
def test_both_say_the_same(tmp_path: Path) -> None:
    """What the makers' converter makes of the XML is the JSON."""
    (tmp_path / "metadata.xml").write_bytes(build_csdl_xml(TYPES))
    command = ["node", str(CSDL / "lib" / "cli.js"), "metadata.xml"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    converted = json.loads((tmp_path / "metadata.json").read_text("utf-8"))
    ours = json.loads(decimal_json.encode(build_csdl_json(TYPES)))
    # The XML is of 4.0, and the vocabularies it refers to are in XML.
    assert converted.pop("$Version") == "4.0"
    assert ours.pop("$Version") == "4.01"
    references = {
        uri.replace(".xml", ".json"): what for uri, what in converted.pop("$Reference").items()
    }
    assert ours.pop("$Reference") == references
    assert converted == ours


def test_properties_tell_what_they_take() -> None:
    found = build_csdl_json(TYPES)["FhirRelay"]["msemr_observation"]
    assert found["$Key"] == ["msemr_observationid"]
    assert found["msemr_observationid"] == {
        "$Type": "Edm.Guid",
        "@Org.OData.Core.V1.Immutable": True,
    }
    assert found["description"] == {"$Nullable": True, "$MaxLength": 20}
    assert found["status"] == {"$Type": "Edm.Int32"}
    assert found["value"] == {
        "$Type": "Edm.Decimal", "$Nullable": True, "$Precision": 10, "$Scale": 3,
    }  # fmt: skip
    assert found["ratio"] == {"$Type": "Edm.Decimal", "$Nullable": True}
    assert found["issued"] == {"$Type": "Edm.DateTimeOffset", "$Nullable": True, "$Precision": 6}
    assert found["allergy"] == {"$Nullable": True, "@Org.OData.Core.V1.Computed": True}


def test_sets_tell_what_can_be_done_with_them() -> None:
    container = build_csdl_json(TYPES)["FhirRelay"]["Container"]
    written, read = container["msemr_observations"], container["msemr_locations"]
    assert written["@Org.OData.Capabilities.V1.UpdateRestrictions"] == {"Updatable": True}
    assert read["@Org.OData.Capabilities.V1.UpdateRestrictions"] == {"Updatable": False}
    for item in (written, read):
        assert item["@Org.OData.Capabilities.V1.ExpandRestrictions"] == {"Expandable": False}
        assert item["@Org.OData.Core.V1.OptimisticConcurrency"] == []


def test_a_type_without_a_guid_for_a_key_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="the key: Edm"):
        EntityType("t", "ts", "id", (Property("id"),))
    with pytest.raises(KeyError):
        EntityType("t", "ts", "id", ())
