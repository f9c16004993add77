"""A page that is being answered: who asks, for what, and how it is made into HTML."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from integration.pages.http import PageRequest, Reply, build_link
from integration.pages.parts import PagesParts
from integration.pages.people import Person, Role
from integration.pages.row_links import link_rows

_FOLDER = Path(__file__).parent
STATIC = _FOLDER / "static"

# Characters of an id that is shown whole, and of the end that is shown of a longer one.
_MAX_ID, _END_OF_ID = 16, 8

# What the menu shows: path, text, and the role that sees it.
MENU = (
    ("", "Today", Role.READER),
    ("attention", "Attention", Role.READER),
    ("deliveries", "Deliveries", Role.READER),
    ("jobs", "Jobs", Role.READER),
    ("patients", "Patients", Role.PHI),
    ("activity", "Activity", Role.READER),
    ("maps", "Maps", Role.READER),
    ("data-routes", "Data routes", Role.READER),
    ("senders", "Senders", Role.READER),
    ("configuration", "Configuration", Role.READER),
    ("settings", "Settings", Role.READER),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A request of somebody who is signed in. `arguments`: of the path; `fields`: of the query, or
    of the form; `token`: what a form repeats."""

    parts: PagesParts
    request: PageRequest
    person: Person
    token: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


def render(view: View, template: str, *, status: int = 200, **values: Any) -> Reply:
    """Fill a template. `values`: what it shows; it escapes them."""
    html = (
        _load_templates()
        .get_template(template)
        .render(
            person=view.person,
            can_sign_out=view.parts.sign_in.easy_auth,
            token=view.token,
            menu=[entry for entry in MENU if view.person.can(entry[2])],
            current=view.request.path.split("/")[0],
            now=view.parts.now(),
            Role=Role,
            dataverse_url=view.parts.dataverse_url,
            **values,
        )
    )
    return Reply(body=html.encode(), status=status)


def render_stranger(template: str, *, status: int, **values: Any) -> Reply:
    """Fill a template for somebody who is not signed in."""
    html = _load_templates().get_template(template).render(**values)
    return Reply(body=html.encode(), status=status)


@cache
def _load_templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,  # what is misspelt fails, and is not left out
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(link=build_link, asset=build_asset_link)
    environment.filters.update(
        time=format_time,
        second=format_second,
        age=format_age,
        count=format_count,
        plural=choose_plural,
        id=format_id,
        rows=format_rows,
    )
    return environment


@cache
def build_asset_link(name: str) -> str:
    """Return the address of a file of `static`, which changes with its content: so browsers may
    keep it for good."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return build_link(f"static/{name}", {"v": digest})


def format_time(moment: datetime | None) -> Markup | str:
    """Show a time in UTC. A script shows it in the reader's zone, with UTC on hover."""
    return _format_moment(moment, "%Y-%m-%d %H:%M UTC", shows_seconds=False)


def _format_moment(moment: datetime | None, style: str, *, shows_seconds: bool) -> Markup | str:
    if moment is None:
        return "-"
    utc = moment.astimezone(UTC)
    stamp = utc.isoformat(timespec="seconds").replace("+00:00", "Z")
    exact = f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    shown = Markup(' data-seconds=""') if shows_seconds else ""
    text = Markup('<time datetime="{}" title="{}"{}>{}</time>')
    return text.format(stamp, exact, shown, utc.strftime(style))


def format_second(moment: datetime | None) -> Markup | str:
    """Show a time as `format_time` does, with its second: in lists of what came one after the
    other."""
    return _format_moment(moment, "%Y-%m-%d %H:%M:%S UTC", shows_seconds=True)


def format_age(duration: timedelta) -> str:
    """Say how long something lasts, in its largest unit: `3 min`."""
    seconds = max(0, int(duration.total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def format_id(name: str) -> Markup:
    """Show an id, or `Patient/<id>`: of a long one the end, since ids of one time begin alike. All
    of it stays in the page: it is read out, found, copied, and seen on hover."""
    type_, slash, id_ = name.rpartition("/")
    cut = max(len(id_) - _END_OF_ID, 0) if len(id_) > _MAX_ID else 0
    hidden = Markup('<span class="cut">{}</span>').format(id_[:cut]) if cut else ""
    text = Markup('<span class="id" title="{}">{}{}{}{}</span>')
    return text.format(name, type_, slash, hidden, id_[cut:])


@pass_context
def format_rows(context: Context, text: str) -> Markup:
    """Show a text with links to the rows of Dataverse that it names."""
    return link_rows(text, context["dataverse_url"])


def format_count(number: int) -> str:
    """Write a number with its thousands apart, by a narrow space that does not break."""
    return f"{number:,}".replace(",", "\u202f")


def choose_plural(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 delivery`, `2 deliveries`."""
    return f"{format_count(number)}\u00a0{singular if number == 1 else plural or singular + 's'}"
