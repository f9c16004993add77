"""Settings as the sample has them, and an environment that remembers what it was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

SAMPLE = Path(__file__).parents[2] / "local.settings.sample.json"

VALUES: dict[str, str] = json.loads(SAMPLE.read_text("utf-8"))["Values"]

# The host reads this one, not the app.
OF_THE_HOST = {"FUNCTIONS_WORKER_RUNTIME"}

REQUIRED = {
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "FHIR_URL": "https://fhir.example.org/r4/",
    "DATAVERSE_URL": "https://org.example.org",
}


class Recording(Mapping[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values_, self.asked = values, set[str]()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("settings are read by name")

    def __len__(self) -> int:
        return len(self.values_)
