"""A configuration that tests change: the package is the shipped maps, and the clock stands still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from integration.app.package_documents import parse_configured_senders
from integration.core.errors import Misconfigured
from integration.journal.configuration import MAPS_FOLDER, MemoryConfigurationStore
from integration.journal.live_configuration import Document, LiveConfiguration
from integration.mapping.files import MapFile, MapText, parse_map_files, read_map_texts
from integration.operations.configuration import ConfigurationParts
from tests.conftest import Route

PATIENT = "maps/patient.toml"
GOAL = "maps/goal.toml"


def open_live(store: MemoryConfigurationStore | None = None) -> LiveConfiguration:
    """What a worker of the shipped package knows."""
    package = {
        f"{MAPS_FOLDER}{name}": Document(given.text, given.origin)
        for name, given in read_map_texts("healthcare").items()
    }
    return LiveConfiguration(store=store or MemoryConfigurationStore(), package=package)


def build_parts(route: Route, live: LiveConfiguration | None = None) -> ConfigurationParts:
    """What changes a configuration."""
    tokens = count(1)

    def parse_maps(documents: Mapping[str, Document]) -> Sequence[MapFile]:
        texts = {
            name.removeprefix(MAPS_FOLDER): MapText(document.text, document.origin)
            for name, document in documents.items()
            if name.startswith(MAPS_FOLDER)
        }
        return parse_map_files(texts)

    def check_senders(documents: Mapping[str, Document]) -> Sequence[str]:
        try:
            parse_configured_senders(documents)
        except Misconfigured as error:
            return [str(error)]
        return []

    return ConfigurationParts(
        live=live or open_live(),
        parse_maps=parse_maps,
        check_senders=check_senders,
        dataverse=route.dataverse,
        is_mirroring=True,
        now=route.clock,
        new_token=lambda: f"{next(tokens):016x}",
    )


def change_patient(parts: ConfigurationParts, old: str, new: str) -> dict[str, str | None]:
    """The shipped map of patients with one text in the place of another."""
    text = parts.live.package[PATIENT].text
    assert old in text
    return {PATIENT: text.replace(old, new)}


def add_column(parts: ConfigurationParts, column: str, path: str) -> dict[str, str | None]:
    """The shipped map of patients with one column more."""
    block = f'\n[[attribute]]\ncolumn = "{column}"\npath = "{path}"\n'
    return {PATIENT: parts.live.package[PATIENT].text + block}
