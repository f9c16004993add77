"""The documents of the configuration as the package and the settings have them: version 0. And what
documents mean, whichever version has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from integration.app.settings import MirrorSettings, Settings
from integration.core.errors import Misconfigured
from integration.fhir.grammar import RESOURCE_TYPES
from integration.journal.configuration import MAPS_FOLDER, SENDERS
from integration.journal.live_configuration import PUBLISHED, Document
from integration.mapping.files import (
    MapFile,
    MapText,
    list_tables,
    parse_map_files,
    read_map_texts,
)
from integration.senders.load import parse_senders
from integration.senders.model import Sender
from integration.virtual_tables.data_routes import VIRTUAL


@dataclass(frozen=True, slots=True)
class SendersText:
    """The text of a document of senders, and what it is called in messages."""

    name: str
    text: str


def read_package_documents(settings: Settings) -> dict[str, Document]:
    """Read maps and senders by the names of their documents. Raises Misconfigured."""
    mirror, file = settings.mirror, settings.senders.senders_file
    maps = read_map_texts(mirror.map_set, mirror.maps_folder)
    documents = {
        f"{MAPS_FOLDER}{name}": Document(given.text, given.origin) for name, given in maps.items()
    }
    if file is not None:
        try:
            documents[SENDERS] = Document(file.read_text("utf-8"), file.name)
        except (OSError, UnicodeDecodeError) as error:
            text = f"SENDERS: {file} cannot be read ({type(error).__name__})"
            raise Misconfigured(text) from None
    return documents


def parse_configured_maps(
    documents: Mapping[str, Document], mirror: MirrorSettings
) -> tuple[MapFile, ...]:
    """Return the files of maps. Raises Misconfigured for a setting that names none of them."""
    texts = {
        name.removeprefix(MAPS_FOLDER): MapText(document.text, document.origin)
        for name, document in documents.items()
        if name.startswith(MAPS_FOLDER)
    }
    return tuple(parse_map_files(texts, mirror.map_prefix, mirror.enabled_maps))


def parse_used_maps(documents: Mapping[str, Document], settings: Settings) -> tuple[MapFile, ...]:
    """Return the files of maps as the app uses them. Raises Misconfigured also for a type of
    EXTERNAL_EVENTS without a virtual table: it may be misspelt, or its map left out."""
    map_files = parse_configured_maps(documents, settings.mirror)
    virtual = {name for name, table in list_tables(map_files).items() if VIRTUAL in table.routes}
    if unknown := sorted({*settings.feed.event_types} - virtual):
        raise Misconfigured(f"EXTERNAL_EVENTS: there is no virtual table of {', '.join(unknown)}")
    return map_files


def find_senders_text(documents: Mapping[str, Document]) -> SendersText | None:
    """Return the document of senders; None: there is none."""
    found = documents.get(SENDERS)
    if found is None:
        return None
    file = None if found.origin == PUBLISHED else found.origin
    return SendersText(file or SENDERS, found.text)


def parse_configured_senders(documents: Mapping[str, Document]) -> Mapping[str, Sender] | None:
    """Return the senders by name; None: there is no list of them. Raises Misconfigured with
    everything that is wrong."""
    found = find_senders_text(documents)
    return None if found is None else parse_senders(found.text, RESOURCE_TYPES, found.name)
