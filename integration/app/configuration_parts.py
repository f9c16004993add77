"""Build what changes the configuration needs, and what tells how a map would change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from integration.app.identification import find_missing_bases
from integration.app.package_documents import (
    parse_configured_maps,
    parse_configured_senders,
    parse_used_maps,
)
from integration.app.services import Services, make_token
from integration.app.settings import MirrorSettings
from integration.core.errors import Misconfigured
from integration.journal.configuration import ConfigurationVersion, apply_changes
from integration.journal.jobs import PreviewFilter
from integration.journal.live_configuration import Document
from integration.mapping.files import MapFile
from integration.operations.configuration import ConfigurationParts

if TYPE_CHECKING:  # these import the mapping engine, which takes long to load
    from integration.mapping.load import Maps
    from integration.mapping.map_changes import MapChanges
    from integration.mapping.model import EntityMap


def build_configuration(services: Services) -> ConfigurationParts:
    """Build what changing the configuration needs."""
    settings = services.settings

    def parse_maps(documents: Mapping[str, Document]) -> Sequence[MapFile]:
        return parse_used_maps(documents, settings)

    def check_senders(documents: Mapping[str, Document]) -> Sequence[str]:
        try:
            senders = parse_configured_senders(documents) or {}
        except Misconfigured as error:
            return [str(error)]
        missing = find_missing_bases(senders.values(), settings.fetch_from)
        return [
            f"senders.toml: FETCH_FROM does not hold {base} of {name}: add it there first"
            for name, base in missing.items()
        ]

    return ConfigurationParts(
        live=services.configuration,
        parse_maps=parse_maps,
        check_senders=check_senders,
        dataverse=services.dataverse,
        is_mirroring=settings.mirror.target != "off",
        now=services.now,
        new_token=make_token,
    )


async def find_changes(services: Services, asked: PreviewFilter) -> MapChanges:
    """Return how a map would change. Raises Misconfigured where it would be broken, or none."""
    live = services.configuration
    base = await live.store.read_version(asked.base)
    if base is None:
        raise Misconfigured(f"version {asked.base} of the configuration is lost")
    changed = replace(base, documents=apply_changes(base.documents, asked.changes))
    before, after = await live.read(base), await live.read(changed)
    return await asyncio.to_thread(
        _compare_maps, services.settings.mirror, asked.type, before.documents, after.documents
    )


# The versions among which the map of a row is looked for, newest first.
_FORMER_VERSIONS = 50


async def find_map_by_digest(services: Services, type_: str, digest: str) -> EntityMap | None:
    """Return the map of a type that has this digest, of the package or of one of the last versions;
    None: none of them has it. Raises Unavailable."""
    live = services.configuration
    versions = await live.store.list_versions(_FORMER_VERSIONS, None)
    for version in (*versions, ConfigurationVersion()):
        try:
            documents = (await live.read(version)).documents
            files = parse_configured_maps(documents, services.settings.mirror)
        except Misconfigured:  # a document is lost, or a setting names a map that it has not
            continue
        found = await asyncio.to_thread(_build_if_digest, files, type_, digest)
        if found is not None:
            return found
    return None


def _build_if_digest(files: Sequence[MapFile], type_: str, digest: str) -> EntityMap | None:
    from integration.mapping import load
    from integration.mapping.model import Route

    if load.compute_type_digest(files, type_) != digest:
        return None
    maps = load.build_maps([file for file in files if file.resource == type_])
    found = maps.entities.get(type_)
    return None if found is None else found.select_route(Route.DATAVERSE)


def _compare_maps(
    settings: MirrorSettings,
    type_: str,
    before: Mapping[str, Document],
    after: Mapping[str, Document],
) -> MapChanges:
    from integration.mapping import load
    from integration.mapping.map_changes import find_map_changes
    from integration.mapping.model import Route

    def build(documents: Mapping[str, Document]) -> Maps:
        files = parse_configured_maps(documents, settings)
        return load.build_maps([file for file in files if file.resource == type_])

    old, new = build(before), build(after)
    if type_ not in new.entities:
        raise Misconfigured(new.broken.get(type_, f"the change leaves {type_} without a map"))
    known = old.entities.get(type_)
    return find_map_changes(
        None if known is None else known.select_route(Route.DATAVERSE),
        new.entities[type_].select_route(Route.DATAVERSE),
    )
