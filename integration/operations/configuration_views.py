"""What is asked about the configuration as JSON, and told. Pure.

{"changes": {"maps/patient.toml": "...", "maps/goal.toml": null}, "why": "...", "by": "a name"}
{"restore": 3, "documents": ["maps/patient.toml"], "why": "...", "by": "a name"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.journal.configuration import MAX_NAME_LENGTH, ConfigurationVersion, compute_digest
from integration.journal.live_configuration import Configuration
from integration.operations.configuration import CheckedChanges

PARAMETERS = ("version", "before", "dry-run", "preview")

_FIELDS = ("changes", "restore", "documents", "why", "by", "base")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationRequest:
    """What somebody wants published: `changes`, or the version `restore` again. See
    integration.operations.configuration."""

    changes: Mapping[str, str | None] = field(default_factory=dict)
    restore: int | None = None
    documents: tuple[str, ...] = ()
    why: str = ""
    by: str = ""
    base: int | None = None


def parse_configuration_request(body: Any, user: str | None) -> ConfigurationRequest:
    """Parse the body of a request. `user`: who asks, where something in front of the app says so:
    that counts for more than the body. Raises Rejected."""
    if not isinstance(body, dict):
        raise Rejected(Issue("structure", "the body must be a JSON object"))
    if unknown := sorted(set(body) - {*_FIELDS}):
        text = f"the body has fields that are not known: it takes {', '.join(_FIELDS)}"
        raise Rejected(Issue("not-supported", text, ", ".join(unknown)[:MAX_NAME_LENGTH]))
    changes, restore = body.get("changes", {}), body.get("restore")
    if not isinstance(changes, dict) or not all(
        text is None or isinstance(text, str) for text in changes.values()
    ):
        text = "changes must be an object with the texts of documents by their names, or null"
        raise Rejected(Issue("structure", text, "changes"))
    if bool(changes) == (restore is not None):
        raise Rejected(Issue("required", "give either changes, or the version to restore"))
    return ConfigurationRequest(
        changes=changes,
        restore=_parse_number(body, "restore"),
        documents=_parse_names(body.get("documents", [])),
        why=_parse_text(body, "why"),
        by=user or _parse_text(body, "by")[:MAX_NAME_LENGTH],
        base=_parse_number(body, "base"),
    )


def parse_version_number(query: Mapping[str, str], name: str) -> int | None:
    """Return a number of a version that a query names; None: it names none. Raises Rejected."""
    text = query.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise Rejected(Issue("value", f"{name} must be the number of a version", name))
    return int(text)


def describe_version(version: ConfigurationVersion) -> dict[str, Any]:
    """Return a version as JSON shows it."""
    fields = {
        "version": version.number,
        "published": version.published,
        "published_by": version.published_by or None,
        "why": version.why or None,
        "restores": version.restores,
        "documents": {
            name: digest or "not in use" for name, digest in sorted(version.documents.items())
        },
    }
    return {name: value for name, value in fields.items() if value is not None}


def describe_configuration(
    configuration: Configuration, history: Sequence[ConfigurationVersion]
) -> dict[str, Any]:
    """Return what is in use, and the versions that were published, as JSON shows them."""
    return {
        "version": configuration.version.number,
        "documents": [
            {
                "name": name,
                "from": document.origin or "your own folder",
                "digest": compute_digest(document.text),
            }
            for name, document in sorted(configuration.documents.items())
        ],
        "history": [describe_version(version) for version in history],
    }


def describe_checked(checked: CheckedChanges) -> dict[str, Any]:
    """Return what changes mean as JSON shows it."""
    return {
        "base": checked.base.number,
        "changed": [item.name for item in checked.changed],
        "maps": sorted(checked.entities),
        "problems": list(checked.problems),
        **({} if checked.unchecked is None else {"unchecked": checked.unchecked}),
    }


def _parse_number(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise Rejected(Issue("value", f"{name} must be the number of a version", name))
    return value


def _parse_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise Rejected(Issue("structure", "documents must be a list of names", "documents"))
    return tuple(value)


def _parse_text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or not value.isprintable():
        raise Rejected(Issue("value", f"{name} must be a text in one line", name))
    return value
