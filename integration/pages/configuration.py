"""The pages Configuration: the versions of maps, senders and data routes, what each has changed,
the drafts of the next one, and the editor.

The list costs three storage operations. An editor that checks what is typed costs one request to
Dataverse for each table of the map. What a draft would change is looked for by a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from integration.core.errors import Issue, Rejected
from integration.core.offload import offload
from integration.journal.configuration import (
    LEFT_OUT,
    MAPS_FOLDER,
    MAX_DOCUMENT,
    ConfigurationVersion,
    apply_changes,
    is_document_name,
)
from integration.journal.jobs import JobKind
from integration.journal.live_configuration import SPREAD_SECONDS
from integration.operations.configuration import (
    HISTORY_PAGE,
    ChangedDocument,
    check_changes,
    choose_restored,
    compare_versions,
    discard_draft,
    find_draft,
    find_version,
    list_history,
    publish_draft,
    read_changes,
    roll_back,
    save_draft,
)
from integration.operations.configuration_views import parse_version_number
from integration.operations.job_request import JobRequest, build_reconcile_filter
from integration.operations.jobs import start_job
from integration.operations.previews import start_preview
from integration.pages.http import Reply, redirect
from integration.pages.line_differences import ChangedLine, list_changed_lines
from integration.pages.view import View, render

# Bytes of a form with a document. A form writes a quote with three bytes.
MAX_FORM = 3 * MAX_DOCUMENT

EDIT_FIELDS = ("document", "draft")
CHECK_FIELDS = ("document", "draft", "text", "do")
DRAFT_FIELDS = ("do", "why", "type", "document")
VERSION_FIELDS = ("do", "why", "type")

_CHECK, _SAVE, _PACKAGE, _LEAVE_OUT = "check", "save", "package", "leave-out"
_PUBLISH, _PREVIEW, _DISCARD = "publish", "preview", "discard"
_RESTORE, _BRING = "restore", "bring"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownChange:
    """A document that differs, for a page. `lines`: None: they are too many to be compared."""

    name: str
    is_added: bool
    is_gone: bool
    lines: Sequence[ChangedLine] | None


async def show_configuration(view: View) -> Reply:
    """Show the version in use, what of it differs from the package, drafts, and the history."""
    parts = view.parts.configuration
    before = parse_version_number(view.fields, "before")
    current = await parts.live.refresh()
    history = await list_history(parts, before)
    package = parts.live.package
    return render(
        view,
        "configuration.html",
        configuration=current,
        documents=[
            (name, document.origin, _is_map(name))
            for name, document in sorted(current.documents.items())
        ],
        left_out=sorted(package.keys() - current.documents.keys()),
        drafts=await parts.live.store.list_drafts(),
        history=history,
        after=str(history[-1].number) if len(history) == HISTORY_PAGE else None,
        is_first=before is None,
    )


async def show_version(view: View) -> Reply:
    """Show what a version has changed, and what to go back to it would change."""
    parts = view.parts.configuration
    version = await _find_version(view)
    latest = (await parts.live.refresh()).version
    changed: list[ChangedDocument] = []
    if version.number:
        previous = await find_version(parts, version.number - 1)
        changed = await compare_versions(parts, previous, version)
    restored = apply_changes(latest.documents, choose_restored(latest, version))
    back = replace(latest, documents=restored)
    return render(
        view,
        "configuration_version.html",
        version=version,
        latest=latest,
        changes=await _show_changes(changed),
        types=await _list_mirrored_types(view, changed) if version == latest else [],
        restored=await _show_changes(await compare_versions(parts, latest, back)),
        seconds=int(SPREAD_SECONDS),
    )


async def change_version(view: View) -> Reply:
    """Go back to a version, or have the rows that it changes brought up to date."""
    version = await _find_version(view)
    match view.fields.get("do"):
        case do if do == _RESTORE:
            restored = await roll_back(
                view.parts.configuration,
                version.number,
                why=_read_why(view),
                by=view.person.name,
            )
            return redirect(f"configuration/versions/{restored.number}")
        case do if do == _BRING:
            type_ = view.fields.get("type", "")
            request = JobRequest(
                kind=JobKind.RECONCILE,
                filter=build_reconcile_filter(type_, None, dry_run=False),
                started_by=view.person.name,
            )
            # A worker that does not know the version yet would write a row as it was.
            job = await start_job(view.parts.jobs, request, delay=SPREAD_SECONDS)
            return redirect(f"jobs/{job.id}")
    raise Rejected(Issue("value", f"do must be {_RESTORE} or {_BRING}", "do"))


# -- the editor -----------------------------------------------------------------------------------


async def show_editor(view: View) -> Reply:
    """Show a document as a text that can be changed: as a draft has it, or else as it is in use."""
    name = _read_document_name(view)
    draft = view.fields.get("draft")
    changes: Mapping[str, str | None] = {}
    if draft is not None:
        parts = view.parts.configuration
        changes = await read_changes(parts, await find_draft(parts, draft))
    current = await view.parts.configuration.live.get()
    in_use = current.documents.get(name)
    text = changes.get(name, in_use.text if in_use else "") or ""
    return render(
        view,
        "configuration_edit.html",
        name=name,
        draft=draft,
        text=text,
        in_use=in_use,
        is_shipped=name in view.parts.configuration.live.package,
        checked=None,
        changes=[],
    )


async def take_edit(view: View) -> Reply:
    """Check what was typed, or save it into a draft. A draft may be broken: it is no more than
    that."""
    name = _read_document_name(view)
    parts, id_ = view.parts.configuration, view.fields.get("draft")
    text = _read_typed(view.fields.get("text", ""))
    do = view.fields.get("do", _CHECK)
    if do == _CHECK:
        saved = {} if id_ is None else await read_changes(parts, await find_draft(parts, id_))
        checked = await check_changes(parts, {**saved, name: text})
        current = await parts.live.get()
        return render(
            view,
            "configuration_edit.html",
            name=name,
            draft=id_,
            text=text,
            in_use=current.documents.get(name),
            is_shipped=name in parts.live.package,
            checked=checked,
            changes=await _show_changes([item for item in checked.changed if item.name == name]),
        )
    choices: dict[str, str | None] = {_SAVE: text, _PACKAGE: None, _LEAVE_OUT: LEFT_OUT}
    if do not in choices:
        raise Rejected(Issue("value", f"do must be one of {_CHECK}, {', '.join(choices)}", "do"))
    draft = await save_draft(parts, {name: choices[do]}, by=view.person.name, id_=id_)
    return redirect(f"configuration/drafts/{draft.id}")


# -- drafts ---------------------------------------------------------------------------------------


async def show_draft(view: View) -> Reply:
    """Show what a draft changes, what is wrong with it, and what can be done with it."""
    parts = view.parts.configuration
    draft = await find_draft(parts, view.arguments["id"])
    checked = await check_changes(parts, await read_changes(parts, draft))
    return render(
        view,
        "configuration_draft.html",
        draft=draft,
        checked=checked,
        changes=await _show_changes(checked.changed),
        unchanged=sorted(draft.changes.keys() - {item.name for item in checked.changed}),
        types=await _list_mirrored_types(view, checked.changed),
        seconds=int(SPREAD_SECONDS),
    )


async def change_draft(view: View) -> Reply:
    """Publish a draft, look what it would change, or discard it."""
    parts, id_ = view.parts.configuration, view.arguments["id"]
    match view.fields.get("do"):
        case do if do == _PUBLISH:
            version = await publish_draft(parts, id_, why=_read_why(view), by=view.person.name)
            return redirect(f"configuration/versions/{version.number}")
        case do if do == _PREVIEW:
            changes = await read_changes(parts, await find_draft(parts, id_))
            job = await start_preview(
                parts,
                view.parts.jobs,
                changes,
                type_=view.fields.get("type", ""),
                by=view.person.name,
            )
            return redirect(f"jobs/{job.id}")
        case do if do == _DISCARD:
            await discard_draft(parts, id_)
            return redirect("configuration")
    text = f"do must be {_PUBLISH}, {_PREVIEW} or {_DISCARD}"
    raise Rejected(Issue("value", text, "do"))


# -- what several of them show --------------------------------------------------------------------


async def _find_version(view: View) -> ConfigurationVersion:
    number = parse_version_number(view.arguments, "number")
    assert number is not None, "the address has it"
    return await find_version(view.parts.configuration, number)


async def _show_changes(changed: Sequence[ChangedDocument]) -> list[ShownChange]:
    size = sum(len(item.before or "") + len(item.after or "") for item in changed)

    def compare() -> list[ShownChange]:
        return [
            ShownChange(
                name=item.name,
                is_added=item.before is None,
                is_gone=item.after is None,
                lines=list_changed_lines(item.before or "", item.after or ""),
            )
            for item in changed
        ]

    # Comparing takes far longer than parsing, for which the bounds of `offload` are.
    return await offload(20 * size, compare)


async def _list_mirrored_types(view: View, changed: Sequence[ChangedDocument]) -> list[str]:
    """Return the resource types whose rows are mirrored by a map that has changed."""
    parts = view.parts.configuration
    current = await parts.live.get()
    names = {item.name.removeprefix(MAPS_FOLDER) for item in changed if item.after is not None}
    queues = await view.parts.patients.change_queues()
    files = parts.parse_maps(current.documents)
    return sorted({file.resource for file in files if file.name in names} & queues.keys())


def _read_document_name(view: View) -> str:
    name = view.fields.get("document", "")
    if "/" not in name and name.endswith(".toml") and not is_document_name(name):
        name = f"{MAPS_FOLDER}{name}"
    if not is_document_name(name):
        text = "name a document: senders.toml, data-routes.toml, or a map as maps/NAME.toml"
        raise Rejected(Issue("value", text, "document"))
    return name


def _read_why(view: View) -> str:
    return " ".join(view.fields.get("why", "").split())


def _read_typed(text: str) -> str:
    """Return a text as a file has it. A browser ends lines with CR LF:
    https://html.spec.whatwg.org/multipage/form-control-infrastructure.html"""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"


def _is_map(name: str) -> bool:
    return name.startswith(MAPS_FOLDER)
