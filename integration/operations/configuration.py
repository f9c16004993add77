"""VERBS check_changes, publish, roll_back, list_history, save_draft, find_draft, discard_draft:
change the configuration as a whole, in one step, and take it back as easily.

What is broken is not published: a map must be one, and fit the tables of the organisation; senders
must be ones. Of two people who publish at once one is told, and nothing of the other is lost.
docs/decisions/0046-the-configuration-has-versions.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.core.log_events import log_event
from integration.dataverse.client import Dataverse
from integration.journal.configuration import (
    DATA_ROUTES,
    LEFT_OUT,
    MAPS_FOLDER,
    MAX_DOCUMENT,
    MAX_DOCUMENTS,
    MAX_WHY_LENGTH,
    SENDERS,
    ConfigurationVersion,
    Draft,
    apply_changes,
    compute_digest,
    find_conflicts,
    is_document_name,
)
from integration.journal.configured_routes import parse_data_routes
from integration.journal.live_configuration import (
    PUBLISHED,
    Configuration,
    Document,
    LiveConfiguration,
)
from integration.journal.table_keys import build_audit_id
from integration.mapping.files import MapFile, list_tables

if TYPE_CHECKING:  # it imports the mapping engine, which takes long to load
    from integration.mapping.model import EntityMap

# Seconds for Dataverse to tell the columns of the tables of a map.
_TIMEOUT = 20.0

# Versions of a page of the history.
HISTORY_PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationParts:
    """What changing the configuration needs. `parse_maps`: returns the files of maps among the
    documents; raises Misconfigured for a setting that names none of them. `check_senders`: returns
    what is wrong with the document of senders."""

    live: LiveConfiguration
    parse_maps: Callable[[Mapping[str, Document]], Sequence[MapFile]]
    check_senders: Callable[[Mapping[str, Document]], Sequence[str]]
    dataverse: Dataverse
    is_mirroring: bool
    now: Callable[[], datetime]
    new_token: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedDocument:
    """A document that differs. `before`, `after`: its texts; None: it is not in use."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedChanges:
    """What changes mean. `documents`: all that would be in use; `changed`: those that differ from
    what is in use now; `problems`: why they cannot be published, each with its file and line;
    `entities`: the maps that would change, by resource type; `unchecked`: why the columns of
    Dataverse are not known."""

    base: ConfigurationVersion
    documents: Mapping[str, Document]
    changed: Sequence[ChangedDocument]
    problems: Sequence[str]
    entities: Mapping[str, EntityMap]
    unchecked: str | None = None


async def check_changes(
    parts: ConfigurationParts, changes: Mapping[str, str | None]
) -> CheckedChanges:
    """Check changes of the configuration in use, and change nothing. `changes`: texts of documents
    by name; None: as the package has it; LEFT_OUT: not in use. Raises Rejected for a name that no
    document may have, or a document that is too large."""
    current = await parts.live.get()
    return await _check(parts, current, _apply(parts, current, changes))


async def publish(
    parts: ConfigurationParts,
    changes: Mapping[str, str | None],
    *,
    why: str,
    by: str,
    base: int | None = None,
) -> ConfigurationVersion:
    """Publish changes as the next version, all of them or none. `base`: the version that they were
    made on; None: that in use.

    Raises Rejected for what cannot be published; with 409 where somebody else has changed the same
    documents since. Raises Unavailable, also where Dataverse cannot say whether a map fits.
    """
    current = await parts.live.refresh()
    documents = _apply(parts, current, changes)
    digests = _list_digests(parts, changes)
    if base is not None:
        await _check_conflicts(parts, current.version, base, digests)
    checked = await _check(parts, current, documents)
    documents_after = apply_changes(current.version.documents, digests)
    return await _add(parts, checked, documents_after, why=why, by=by)


async def roll_back(
    parts: ConfigurationParts,
    number: int,
    *,
    why: str,
    by: str,
    names: Collection[str] = (),
) -> ConfigurationVersion:
    """Publish the documents of an earlier version again. `names`: those alone; empty: all but the
    data routes, since a table whose rows come from elsewhere is a step of its own.

    Raises Rejected and Unavailable as `publish` does.
    """
    current = await parts.live.refresh()
    earlier = await find_version(parts, number)
    digests = choose_restored(current.version, earlier, names)
    if not digests:
        text = f"version {number} has the same documents as version {current.version.number}"
        raise Rejected(Issue("business-rule", text))
    restored = await parts.live.read(
        replace(current.version, documents=apply_changes(current.version.documents, digests))
    )
    checked = await _check(parts, current, restored.documents)
    return await _add(parts, checked, restored.version.documents, why=why, by=by, restores=number)


def choose_restored(
    current: ConfigurationVersion, earlier: ConfigurationVersion, names: Collection[str] = ()
) -> dict[str, str | None]:
    """Return the digests by which an earlier version differs, by document; None: as the package has
    it. `names`: see `roll_back`. Pure."""
    chosen = names or {*current.documents, *earlier.documents} - {DATA_ROUTES}
    return {
        name: earlier.documents.get(name)
        for name in sorted(chosen)
        if earlier.documents.get(name) != current.documents.get(name)
    }


async def find_version(parts: ConfigurationParts, number: int) -> ConfigurationVersion:
    """Return a version. Raises Rejected with 404 for one that was never published."""
    version = await parts.live.store.read_version(number)
    if version is None:
        raise Rejected(Issue("not-found", f"there is no version {number}"), status=404)
    return version


async def list_history(
    parts: ConfigurationParts, before: int | None = None
) -> Sequence[ConfigurationVersion]:
    """Return the versions that were published, the newest first, a page of them."""
    return await parts.live.store.list_versions(HISTORY_PAGE, before)


async def compare_versions(
    parts: ConfigurationParts, before: ConfigurationVersion, after: ConfigurationVersion
) -> list[ChangedDocument]:
    """Return the documents in which two versions differ, by name."""
    first, second = await parts.live.read(before), await parts.live.read(after)
    return _compare(first.documents, second.documents)


# -- drafts ---------------------------------------------------------------------------------------


async def save_draft(
    parts: ConfigurationParts, changes: Mapping[str, str | None], *, by: str, id_: str | None = None
) -> Draft:
    """Save changes that are not published yet, into a draft that there is already or a new one.
    Raises Rejected, with 409 where somebody else has saved the draft meanwhile."""
    current = await parts.live.get()
    _apply(parts, current, changes)
    digests = await keep_changes(parts, changes)
    now = parts.now()
    draft = Draft(
        id=build_audit_id(now, parts.new_token()),
        base=current.version.number,
        changes=digests,
        saved=now,
        saved_by=by,
    )
    if id_ is not None:
        old = await find_draft(parts, id_)
        draft = replace(
            old, changes={**old.changes, **digests}, saved=now, saved_by=by, etag=old.etag
        )
    saved = await parts.live.store.save_draft(draft)
    if saved is None:
        text = "somebody else has saved this draft meanwhile: open it again"
        raise Rejected(Issue("conflict", text), status=409)
    return saved


async def keep_changes(
    parts: ConfigurationParts, changes: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Keep the texts of changes, and return their digests."""
    digests = _list_digests(parts, changes)
    for name, text in changes.items():
        if text and digests[name]:
            await parts.live.store.add_document(text)
    return digests


async def find_draft(parts: ConfigurationParts, id_: str) -> Draft:
    """Return a draft. Raises Rejected with 404."""
    draft = await parts.live.store.read_draft(id_)
    if draft is None:
        text = "there is no draft with this id: it was published or discarded"
        raise Rejected(Issue("not-found", text), status=404)
    return draft


async def read_changes(parts: ConfigurationParts, draft: Draft) -> dict[str, str | None]:
    """Return the texts of the documents that a draft changes, as `check_changes` takes them."""
    return {
        name: digest if not digest else await parts.live.read_text(digest)
        for name, digest in draft.changes.items()
    }


async def publish_draft(
    parts: ConfigurationParts, id_: str, *, why: str, by: str
) -> ConfigurationVersion:
    """Publish a draft, and delete it. Raises as `publish` does."""
    draft = await find_draft(parts, id_)
    changes = await read_changes(parts, draft)
    version = await publish(parts, changes, why=why, by=by, base=draft.base)
    await parts.live.store.delete_draft(id_)
    return version


async def discard_draft(parts: ConfigurationParts, id_: str) -> None:
    """Delete a draft."""
    await parts.live.store.delete_draft(id_)


# -- checking -------------------------------------------------------------------------------------


def _apply(
    parts: ConfigurationParts, current: Configuration, changes: Mapping[str, str | None]
) -> dict[str, Document]:
    """Return all documents with these changes. Raises Rejected."""
    documents = dict(current.documents)
    for name, text in changes.items():
        if not is_document_name(name):
            why = (
                f"no document has this name; there are {MAPS_FOLDER}NAME.toml, {SENDERS} and "
                f"{DATA_ROUTES}"
            )
            raise Rejected(Issue("value", why, name[:MAX_WHY_LENGTH]))
        if text is not None and len(text.encode()) > MAX_DOCUMENT:
            why = f"{name} has more than {MAX_DOCUMENT:,} bytes"
            raise Rejected(Issue("too-long", why), status=413)
        document = parts.live.package.get(name) if text is None else Document(text, PUBLISHED)
        if document is None or text == LEFT_OUT:
            documents.pop(name, None)
        else:
            documents[name] = document
    return documents


def _list_digests(
    parts: ConfigurationParts, changes: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Return the digests of texts. What is as the package has it is not kept."""
    package = parts.live.package
    return {
        name: None
        if text is None or (name in package and package[name].text == text)
        else text and compute_digest(text)
        for name, text in changes.items()
    }


async def _check_conflicts(
    parts: ConfigurationParts,
    latest: ConfigurationVersion,
    base: int,
    digests: Mapping[str, str | None],
) -> None:
    changed = find_conflicts(await find_version(parts, base), latest, digests)
    if changed:
        text = (
            f"{latest.published_by or 'somebody'} has published version {latest.number} meanwhile, "
            f"which changes {', '.join(changed)}, too: make your changes on that one"
        )
        raise Rejected(Issue("conflict", text), status=409)


def _compare(
    before: Mapping[str, Document], after: Mapping[str, Document]
) -> list[ChangedDocument]:
    texts = {name: document.text for name, document in before.items()}
    others = {name: document.text for name, document in after.items()}
    return [
        ChangedDocument(name=name, before=texts.get(name), after=others.get(name))
        for name in sorted({*texts, *others})
        if texts.get(name) != others.get(name)
    ]


async def _check(
    parts: ConfigurationParts, current: Configuration, documents: Mapping[str, Document]
) -> CheckedChanges:
    changed = _compare(current.documents, documents)
    names = {item.name for item in changed}
    problems: list[str] = []
    if SENDERS in names:
        problems += parts.check_senders(documents)
    entities: Mapping[str, EntityMap] = {}
    unchecked = None
    try:
        files = parts.parse_maps(documents)
    except Misconfigured as error:
        problems.append(str(error))
    else:
        problems += _check_routes(parts, documents, files)
        entities, broken = await asyncio.to_thread(_build_changed_maps, files, changed)
        problems += broken
        if not broken:
            mismatches, unchecked = await _find_mismatches(parts, entities)
            problems += mismatches
    return CheckedChanges(
        base=current.version,
        documents=documents,
        changed=changed,
        problems=problems,
        entities=entities,
        unchecked=unchecked,
    )


def _build_changed_maps(
    files: Sequence[MapFile], changed: Sequence[ChangedDocument]
) -> tuple[dict[str, EntityMap], list[str]]:
    """Return the maps that change, by resource type, and what is wrong with them. What was broken
    before is none of this change's business."""
    from integration.mapping import load

    names = {item.name.removeprefix(MAPS_FOLDER) for item in changed}
    types = {file.resource for file in files if file.name in names}
    maps = load.build_maps([file for file in files if file.resource in types])
    problems = [*maps.broken.values()]
    problems += [text for name, text in maps.broken_unused.items() if name in names]
    return dict(maps.entities), problems


def _check_routes(
    parts: ConfigurationParts, documents: Mapping[str, Document], files: Sequence[MapFile]
) -> list[str]:
    """Return the chosen routes that are no routes, or that their maps do not allow."""
    if DATA_ROUTES not in documents:
        return []
    try:
        routes = parse_data_routes(documents[DATA_ROUTES].text)
    except Misconfigured as error:
        return [str(error)]
    tables = list_tables(files)
    return [
        f"{DATA_ROUTES}: {name}: its map allows the route {' or '.join(tables[name].routes)}, and "
        f"{chosen.route} was chosen: switch its data route first"
        for name, chosen in routes.items()
        if name in tables and chosen.route not in tables[name].routes
    ]


async def _find_mismatches(
    parts: ConfigurationParts, entities: Mapping[str, EntityMap]
) -> tuple[list[str], str | None]:
    """Return where maps do not fit the organisation's tables, and why that is not known."""
    from integration.mapping.model import Route
    from integration.mapping.schema_mismatches import find_schema_mismatches

    mirrored = [
        entity.select_route(Route.DATAVERSE)
        for entity in entities.values()
        if Route.DATAVERSE in entity.routes and parts.is_mirroring
    ]
    names = list(dict.fromkeys(name for entity in mirrored for name in entity.tables))
    mismatches: list[str] = []
    for is_known in (True, False):
        if not is_known:  # somebody may have added a column just now
            parts.dataverse.expire_columns(names)
        try:
            async with asyncio.timeout(_TIMEOUT):
                found = await asyncio.gather(*map(parts.dataverse.get_columns, names))
        except TimeoutError:
            return [], f"Dataverse: no answer in {_TIMEOUT:g} s"
        except Unavailable as error:
            return [], str(error)
        except Misconfigured as error:
            return [str(error)], None
        tables = dict(zip(names, found, strict=True))
        mismatches = [text for item in mirrored for text in find_schema_mismatches(item, tables)]
        if not mismatches:
            break
    return mismatches, None


async def _add(
    parts: ConfigurationParts,
    checked: CheckedChanges,
    digests: Mapping[str, str],
    *,
    why: str,
    by: str,
    restores: int | None = None,
) -> ConfigurationVersion:
    if not why.strip():
        text = "say in a few words why: whoever looks for a change later reads it"
        raise Rejected(Issue("required", text, "why"))
    if checked.problems:
        raise Rejected(*(Issue("invalid", text) for text in checked.problems), status=422)
    if not checked.changed:
        raise Rejected(Issue("business-rule", "nothing differs from what is in use"))
    if len(digests) > MAX_DOCUMENTS:
        text = f"a version has {MAX_DOCUMENTS} documents at most: put them into the package"
        raise Rejected(Issue("too-costly", text))
    if checked.unchecked is not None:
        raise Unavailable("Dataverse", f"whether the map fits is not known: {checked.unchecked}")
    for item in checked.changed:
        if item.after and digests.get(item.name):
            await parts.live.store.add_document(item.after)
    version = ConfigurationVersion(
        number=checked.base.number + 1,
        documents=digests,
        published=parts.now(),
        published_by=by,
        why=why.strip(),
        restores=restores,
    )
    if not await parts.live.store.add_version(version):
        text = "somebody else has published a version just now: look at it, and publish again"
        raise Rejected(Issue("conflict", text), status=409)
    log_event(
        "configuration.published",
        version=version.number,
        restores=restores,
        documents=len(checked.changed),
    )
    await parts.live.refresh()
    return version
