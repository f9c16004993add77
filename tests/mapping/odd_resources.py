"""Resources of the cases, changed at random: what is right for most of a map, and odd somewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Resource = dict[str, Any]

FOLDER = Path(__file__).parent / "cases"

VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [
            *(None, 0, 1, -5, 2**40, True, False, 1.5, Decimal("3.140"), Decimal("1E+999999")),
            *("", " ", " x ", "a\tb", "a\nb", "x\x00", "\ufffe", "é" * 60, "x" * 300, "😀" * 90),
            *(
                "2024",
                "2024-05",
                "2024-05-06",
                "2024-13-45",
                "1066-10-14",
                "2024-W01-1",
                "20240506",
            ),
            *("2024-05-06T07:08:09Z", "2024-05-06T07:08:09.9999999+02:00", "2024-05-06T07:08"),
            *("0001-01-01T00:00:00+14:00", "1753-01-01T00:00:00Z", "2024-05-06T24:00:00Z"),
            *("true", "false", "final", "usual", "old", "home", "phone", "Patient/1", "#inside"),
            *("http://fhir/Patient/2/_history/3", "http://other/Patient/1", "Group/1"),
        ]
    ),
    st.sampled_from(
        [
            *([], {}, [None], [[]], [["x"]], [{}], ["x", "y"], {"value": "x"}, {"code": "x"}),
            *({"text": "x"}, {"coding": []}, {"coding": [{"display": "x"}, {"code": "y"}]}),
            {"coding": [{"code": " y ", "display": ""}], "text": "x\ny"},
            {"extension": [{"url": "u"}]},
            [{"extension": [{"url": "u", "valueString": "x"}]}, {"text": "x"}],
            {"resourceType": "Basic", "id": "1"},
            {"reference": "Patient/3"},
            {"reference": 3},
            {"start": "2024-05-06", "end": "2020"},
        ]
    ),
    st.text(max_size=4),
)


@cache
def load_case_resources(type_: str) -> Sequence[Resource]:
    """The resources of this type in the cases of all maps."""
    files = [json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.rglob("*.json"))]
    resources = [case["resource"] for file in files for case in file["tests"]]
    return [found for found in resources if found.get("resourceType") == type_]


def draw_odd_resource(data: st.DataObject, type_: str) -> Resource:
    """A resource of the cases, with up to four changes."""
    resource = deepcopy(data.draw(st.sampled_from(load_case_resources(type_))))
    for _ in range(data.draw(st.integers(0, 4))):
        if not (places := [*_list_places(resource)]):
            return resource
        container, key = data.draw(st.sampled_from(places))
        value = deepcopy(data.draw(VALUES))
        match data.draw(st.sampled_from(["put", "put", "remove", "repeat", "lack", "name"])):
            case "put":
                container[key] = value
            case "remove":
                del container[key]
            case "repeat":
                container[key] = [container[key], deepcopy(container[key]), value]
            case "lack" if isinstance(container, dict):
                container[f"_{key}"] = {"extension": [{"url": "u", "valueCode": "unknown"}]}
                del container[key]
            case _ if isinstance(container, dict):
                container[data.draw(st.sampled_from(["use", "period", "extension"]))] = value
    return resource


def _list_places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in a resource but its type and id, as a container and a key; its own meta too."""
    items = [*node.items()] if isinstance(node, dict) else [*enumerate(node)]
    for key, value in items:
        if key not in ("resourceType", "id"):
            yield node, key
        if isinstance(value, dict | list):
            yield from _list_places(value)
