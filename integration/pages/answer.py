"""VERB answer_page: find the page of an address, check who asks and what is asked, and show it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from urllib.parse import quote

from integration.core.errors import (
    IntegrationError,
    Issue,
    MethodNotAllowed,
    Misconfigured,
    Rejected,
    Unavailable,
)
from integration.core.log_events import log_event
from integration.pages import (
    activity,
    attention,
    configuration,
    content,
    correction,
    data_routes,
    deliveries,
    delivery,
    jobs,
    maps,
    patient,
    patients,
    reconcile,
    senders,
    settings,
    today,
)
from integration.pages.forms import (
    TOKEN_FIELD,
    build_cookie,
    check_form,
    check_origin,
    read_token,
)
from integration.pages.http import (
    SECURITY_HEADERS,
    PageRequest,
    Reply,
    build_link,
    check_fields,
    parse_fields,
    read_form,
)
from integration.pages.parts import PagesParts
from integration.pages.people import Person, Role, identify_person
from integration.pages.view import STATIC, View, render, render_stranger

Show = Callable[[View], Awaitable[Reply]]

_METHODS = ("GET", "POST")

# Bytes of a form without a file.
MAX_FORM = 100_000

# Bytes of a form with a resource. A form writes a quote or a brace with three bytes.
MAX_RESOURCE_FORM = 2_000_000

_MEDIA = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page, or what one form does. `path`: `{name}` stands for one part of it; `role`: that it
    needs, and `also`: together with this one; `fields`: that its query, or its form, may have;
    `takes_file`: its form is read by the page itself, which calls check_form, too; `max_form`:
    bytes of its form."""

    path: str
    show: Show
    role: Role = Role.READER
    also: Role | None = None
    method: str = "GET"
    fields: tuple[str, ...] = ()
    takes_file: bool = False
    max_form: int = MAX_FORM

    @property
    def roles(self) -> tuple[Role, ...]:
        """All the roles that it needs: phi alone opens nothing."""
        others = [role for role in (self.role, self.also) if role not in (None, Role.PHI)]
        needs_phi = Role.PHI in (self.role, self.also)
        return (*(others or [Role.READER]), *([Role.PHI] if needs_phi else []))


PAGES = (
    Page(path="", show=today.show_today, fields=("refresh",)),
    Page(path="attention", show=attention.show_attention, fields=attention.FIELDS),
    Page(path="deliveries", show=deliveries.show_deliveries, fields=deliveries.FIELDS),
    Page(path="jobs", show=jobs.show_jobs, fields=("after",)),
    Page(path="jobs/new", show=jobs.show_new_job, role=Role.OPERATOR, fields=jobs.NEW_FIELDS),
    Page(
        path="jobs",
        show=jobs.begin_job,
        role=Role.OPERATOR,
        method="POST",
        fields=jobs.NEW_FIELDS,
    ),
    Page(path="jobs/{id}", show=jobs.show_job),
    Page(path="jobs/{id}/stop", show=jobs.end_job, role=Role.OPERATOR, method="POST"),
    Page(path="deliveries/{id}", show=delivery.show_delivery, fields=delivery.FIELDS),
    Page(path="deliveries/{id}/cancel", show=delivery.ask_to_cancel, role=Role.OPERATOR),
    Page(path="deliveries/{id}/cancel", show=delivery.cancel, role=Role.OPERATOR, method="POST"),
    Page(path="deliveries/{id}/replay", show=delivery.replay, role=Role.OPERATOR, method="POST"),
    Page(
        path="deliveries/{id}/correction",
        show=correction.show_correction,
        role=Role.OPERATOR,
        also=Role.PHI,
    ),
    Page(
        path="deliveries/{id}/correction",
        show=correction.send_correction,
        role=Role.OPERATOR,
        also=Role.PHI,
        method="POST",
        takes_file=True,
    ),
    Page(path="deliveries/{id}/entries/{position}", show=content.show_content, role=Role.PHI),
    Page(path="deliveries/{id}/content", show=content.download, role=Role.PHI),
    Page(path="patients", show=patients.show_search, role=Role.PHI),
    Page(
        path="patients",
        show=patients.find_patient,
        role=Role.PHI,
        method="POST",
        fields=patients.FIELDS,
    ),
    Page(path="patients/{id}", show=patient.show_patient, role=Role.PHI, fields=("mirrored",)),
    Page(
        path="patients/{id}/mirror",
        show=patient.mirror_patient,
        role=Role.OPERATOR,
        method="POST",
    ),
    Page(
        path="patients/{id}/mirrored",
        show=patient.show_mirrored,
        role=Role.OPERATOR,
        fields=("delivery",),
    ),
    Page(path="activity", show=activity.show_activity, fields=activity.FIELDS),
    Page(path="senders", show=senders.show_senders),
    Page(path="senders/{name}", show=senders.show_sender),
    Page(path="maps", show=maps.show_maps),
    Page(path="maps/{resource}", show=maps.show_map),
    Page(
        path="maps/{resource}",
        show=maps.try_map,
        role=Role.PHI,
        method="POST",
        fields=("id", "resource"),
        max_form=MAX_RESOURCE_FORM,
    ),
    Page(path="configuration", show=configuration.show_configuration, fields=("before",)),
    Page(path="configuration/versions/{number}", show=configuration.show_version),
    Page(
        path="configuration/versions/{number}",
        show=configuration.change_version,
        role=Role.ADMIN,
        method="POST",
        fields=configuration.VERSION_FIELDS,
    ),
    Page(
        path="configuration/edit",
        show=configuration.show_editor,
        role=Role.ADMIN,
        fields=configuration.EDIT_FIELDS,
    ),
    Page(
        path="configuration/edit",
        show=configuration.take_edit,
        role=Role.ADMIN,
        method="POST",
        fields=configuration.CHECK_FIELDS,
        max_form=configuration.MAX_FORM,
    ),
    Page(path="configuration/drafts/{id}", show=configuration.show_draft),
    Page(
        path="configuration/drafts/{id}",
        show=configuration.change_draft,
        role=Role.ADMIN,
        method="POST",
        fields=configuration.DRAFT_FIELDS,
    ),
    Page(path="data-routes", show=data_routes.show_data_routes, fields=("changed",)),
    Page(path="data-routes/{resource}", show=data_routes.show_switch, fields=("to", "bring")),
    Page(
        path="data-routes/{resource}",
        show=data_routes.switch_route,
        role=Role.ADMIN,
        method="POST",
        fields=("route", "bring"),
    ),
    Page(
        path="data-routes/{resource}/reconcile",
        show=reconcile.show_reconcile,
        role=Role.ADMIN,
    ),
    Page(
        path="data-routes/{resource}/reconcile",
        show=reconcile.begin_reconcile,
        role=Role.ADMIN,
        method="POST",
        fields=reconcile.FIELDS,
    ),
    Page(path="settings", show=settings.show_settings),
)


async def answer_page(
    parts: PagesParts, request: PageRequest, pages: Sequence[Page] = PAGES
) -> Reply:
    """Answer a request below /api/pages. Whatever goes wrong is a page, too."""
    if request.path.startswith("static/"):
        return _with_headers(_answer_static(request))
    person: Person | None = None
    try:
        person = identify_person(parts.sign_in, dict(request.headers), request.url)
        if person is None:
            return _with_headers(_ask_to_sign_in(request))
        return _with_headers(await _answer(parts, request, person, pages))
    except Rejected as error:
        reply = _show_problem(
            parts, request, person, status=error.status, text=str(error), headers=error.headers
        )
    except Unavailable as error:
        log_event("request.unavailable", reason=str(error))
        text = "A service that this page needs does not respond. Open the page again in a minute."
        reply = _show_problem(parts, request, person, status=503, text=text)
    except Misconfigured as error:
        log_event("request.misconfigured", reason=str(error))
        reply = _show_problem(parts, request, person, status=500, text=str(error))
    except IntegrationError as error:
        reply = _show_problem(parts, request, person, status=500, text=str(error))
    return _with_headers(reply)


async def _answer(
    parts: PagesParts, request: PageRequest, person: Person, pages: Sequence[Page]
) -> Reply:
    if request.method not in _METHODS:
        raise MethodNotAllowed(*_METHODS)
    page, arguments = _find_page(request, pages)
    _check_roles(person, page)
    fields = parse_fields(request.query)
    if request.method == "POST":
        check_origin(request)
    if request.method == "POST" and not page.takes_file:
        fields = read_form(request, page.max_form)
        check_form(request, fields)
        del fields[TOKEN_FIELD]
    if not page.takes_file:
        check_fields(fields, page.fields)
    known = read_token(request)
    token = known or parts.new_token()
    view = View(
        parts=parts,
        request=request,
        person=person,
        token=token,
        arguments=arguments,
        fields=fields,
    )
    async with parts.fhir.upstream.activities.track():  # what it asks upstreams is one operation
        reply = await page.show(view)
    if known is not None:
        return reply
    return replace(reply, headers={**reply.headers, "Set-Cookie": build_cookie(request, token)})


def _find_page(request: PageRequest, pages: Sequence[Page]) -> tuple[Page, dict[str, str]]:
    found = [
        (page, match.groupdict())
        for page in pages
        if (match := _compile_path(page.path).fullmatch(request.path)) is not None
    ]
    if not found:
        raise Rejected(Issue("not-found", "There is no page at this address."), status=404)
    for page, arguments in found:
        if page.method == request.method:
            return page, arguments
    raise MethodNotAllowed(*(page.method for page, _ in found))


@cache
def _compile_path(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{([a-z]+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))


def _check_roles(person: Person, page: Page) -> None:
    if missing := [role for role in page.roles if not person.can(role)]:
        needed = f"role{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
        has = ", ".join(sorted(person.roles)) or "none"
        text = (
            f"This page needs the {needed}. Your roles: {has}. Who owns the app's registration "
            "assigns them."
        )
        raise Rejected(Issue("forbidden", text), status=403)


def _ask_to_sign_in(request: PageRequest) -> Reply:
    """A form that was filled in before the sign-in ended is not sent anywhere."""
    here = build_link(request.path if request.method == "GET" else "")
    target = f"/.auth/login/aad?post_login_redirect_uri={quote(here, safe='')}"
    return render_stranger("sign_in.html", status=401, target=target)


def _show_problem(
    parts: PagesParts,
    request: PageRequest,
    person: Person | None,
    *,
    status: int,
    text: str,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    if person is None or not person.can(Role.READER):
        can_sign_out = parts.sign_in.easy_auth
        reply = render_stranger(
            "stranger.html", status=status, text=text, can_sign_out=can_sign_out
        )
    else:
        view = View(parts=parts, request=request, person=person, token="")
        reply = render(view, "problem.html", status=status, code=status, text=text)
    return replace(reply, headers={**reply.headers, **(headers or {})})


def _answer_static(request: PageRequest) -> Reply:
    """Answer a file of `static`, to anybody: it tells nothing of what the app has to do with."""
    name = request.path.removeprefix("static/")
    files = {path.name: path for path in STATIC.iterdir() if path.suffix in _MEDIA}
    if request.method != "GET" or name not in files:
        return Reply(body=b"", status=404)
    return Reply(
        body=files[name].read_bytes(),
        media=_MEDIA[files[name].suffix],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )


def _with_headers(reply: Reply) -> Reply:
    headers = {"Cache-Control": "no-store", **SECURITY_HEADERS, **reply.headers}
    return replace(reply, headers=headers)
