"""Say of a request in a file which sender proves itself by it, or why none does.

Nothing that is printed holds a secret, a signature, a token or a value of the body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from integration.cli.captured_request import (
    CapturedRequest,
    build_request,
    list_bodies,
)
from integration.cli.sender_content import (
    Content,
    ContentLimits,
    describe_content,
    split_address,
)
from integration.core.errors import Misconfigured, Unavailable
from integration.core.model import Rights
from integration.fhir.grammar import RESOURCE_TYPES
from integration.intake.dialects import move_token
from integration.senders.load import parse_senders
from integration.senders.model import Sender
from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.registry import SCHEMES
from integration.senders.recognize import Candidate, recognize
from integration.senders.render import build_tables, list_secret_names, render_tables
from integration.senders.schemes import (
    FUNCTION_KEY,
    collect_secrets,
    covers_address,
    get_scheme,
)
from integration.senders.signed_time import find_signed_time

_EXACT = (
    "the body must be the exact bytes that were sent: a console that shows JSON in a form of its "
    "own changes them"
)

# The most candidates that are shown, where none is proven.
_MAX_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """What trying needs. `root`: PUBLIC_URL; `ask_secret` gets the name of a setting and returns
    its value, None if nobody can be asked; `add_keys` fetches the public keys of an issuer."""

    read_setting: Callable[[str], str | None]
    ask_secret: Callable[[str], str | None]
    add_keys: Callable[[Proof, Secrets, SignedRequest], Awaitable[Secrets]]
    now: datetime
    root: str | None = None
    easy_auth: bool = False
    name: str | None = None  # that is proposed
    secret_settings: tuple[str, ...] = ()
    limits: ContentLimits = field(default_factory=ContentLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """What came of one sender's proof. `reason`: why it is not proven."""

    sender: Sender
    candidate: Candidate | None = None
    proven: Proven | None = None
    reason: str = ""
    remark: str = ""
    tables: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


async def try_sender(
    trial: Try, captured: CapturedRequest, sender: Sender
) -> tuple[list[str], bool]:
    """Return the lines to print, and whether the request is proven, for a sender of the file."""
    name = sender.name
    request = build_request(captured, trial.root, name)
    attempt = await _attempt(_ask_once(trial, sender.proof), captured, sender, None)
    lines = [*_describe_request(captured, request)]
    lines += [f"looks like: {_describe(item)}" for item in _list_shown(recognize(request))]
    lines.append(f"senders.toml: {name} proves itself by {get_scheme(sender.proof)}")
    lines += _describe_attempt(attempt, request, trial)
    lines += _describe_content(_describe_sent(attempt, captured, trial))
    return lines, attempt.proven is not None


async def try_candidates(trial: Try, captured: CapturedRequest) -> tuple[list[str], bool]:
    """Do the same for each sender that the request looks like, with the table for the one that is
    proven."""
    request = build_request(captured, trial.root, trial.name or "vendor")
    request = move_token("redox", request)  # its challenges have the token elsewhere
    candidates = recognize(request)
    lines = [*_describe_request(captured, request)]
    if not candidates:
        names = ", ".join(sorted(request.headers))
        lines.append(f"looks like: no scheme; no header holds a proof. Its headers: {names}")
        lines.append(_describe_missing(request))
        return lines, False
    attempts, impossible = await _attempt_all(trial, captured, candidates)
    lines += impossible
    proven = [attempt for attempt in attempts if attempt.proven is not None]
    shown = proven[:1] or [item for item in attempts if item.candidate and _is_shown(item)]
    for attempt in shown[:_MAX_SHOWN]:
        lines += ["", *_describe_proposal(attempt, request, trial)]
    if not shown:
        return lines, False
    first = shown[0]
    content = _describe_sent(first, captured, trial)
    return [*lines, "", *_describe_content(content)], bool(proven)


async def _attempt_all(
    trial: Try, captured: CapturedRequest, candidates: list[Candidate]
) -> tuple[list[_Attempt], list[str]]:
    """Return what came of each candidate up to the first that is proven, and a line for each that
    no table can be written for."""
    attempts: list[_Attempt] = []
    impossible: list[str] = []
    for candidate in candidates:
        name = trial.name or candidate.name or "vendor"
        settings = trial.secret_settings or (f"{name.upper().replace('-', '_')}_SECRET",)
        try:
            sender, tables = _build_sender(name, candidate, settings, Rights())
        except Misconfigured as error:
            impossible.append(f"looks like: {_describe(candidate)}, but not taken: {error}")
            continue
        content = describe_content(build_request(captured, trial.root, name), sender, trial.limits)
        if content.rights is not None:
            sender, tables = _build_sender(name, candidate, settings, content.rights)
        trial = _ask_once(trial, sender.proof)
        attempt = await _attempt(trial, captured, sender, candidate)
        attempts.append(replace(attempt, tables=tables))
        if attempt.proven is not None:
            break
    return attempts, impossible


def _build_sender(
    name: str, candidate: Candidate, settings: tuple[str, ...], needed: Rights
) -> tuple[Sender, Mapping[str, Mapping[str, object]]]:
    """Return the sender of a candidate as a file of its tables gives it, and the tables."""
    rights: dict[str, object] = {}
    if needed.types:
        rights["types"] = list(needed.types)
    # Medplum does not sign what is deleted: deletes need a base, which nobody knows here.
    lacks_base = candidate.policy.get("dialect") == "medplum" and "base" not in candidate.policy
    methods = [name for name in needed.methods if not (lacks_base and name == "DELETE")]
    if methods and not {*methods} <= {*Rights().methods}:
        rights["methods"] = [*Rights().methods, *({*methods} - {*Rights().methods})]
    if needed.reads:
        rights["reads"] = True
    if needed.conditional_deletes and not lacks_base:
        rights["conditional_deletes"] = True
    tables = build_tables(candidate, settings, rights)
    text = "\n".join(render_tables(name, tables))
    return parse_senders(text, RESOURCE_TYPES, "the proposal")[name], tables


def _ask_once(trial: Try, proof: Proof) -> Try:
    """Return a trial that knows the secrets that a person has typed in."""
    asked = {
        name: value
        for name in list_secret_names(proof)
        if trial.read_setting(name) is None and (value := trial.ask_secret(name))
    }
    missing = {name for name in list_secret_names(proof) if trial.read_setting(name) is None}
    read = trial.read_setting
    return replace(
        trial,
        read_setting=lambda name: asked.get(name) or read(name),
        # Who did not answer is not asked again for the next candidate.
        ask_secret=lambda name: None if name in missing else trial.ask_secret(name),
    )


async def _attempt(
    trial: Try, captured: CapturedRequest, sender: Sender, candidate: Candidate | None
) -> _Attempt:
    """Verify the request as it was pasted, and as it may have been sent."""
    failed: _Attempt | None = None
    for variant, remark in list_bodies(captured):
        request = move_token(sender.policy.dialect, build_request(variant, trial.root, sender.name))
        try:
            proven = await _verify(trial, request, sender, candidate)
        except (Unproven, Misconfigured, Unavailable) as error:
            failed = failed or _Attempt(sender=sender, candidate=candidate, reason=str(error))
        else:
            return _Attempt(sender=sender, candidate=candidate, proven=proven, remark=remark)
    if failed is None:
        raise ValueError("a request has at least one body")
    return failed


async def _verify(
    trial: Try, request: SignedRequest, sender: Sender, candidate: Candidate | None
) -> Proven:
    """Raises Unproven with the reason, Misconfigured for a secret, Unavailable for an issuer."""
    scheme = get_scheme(sender.proof)
    if scheme == FUNCTION_KEY:
        raise Unproven("the Functions host compares the key, at /api/fhir: nothing is tried here")
    if candidate is not None and not candidate.is_known:
        raise Unproven(
            "not tried, since jwks_url is a guess: put the table into senders.toml with the right "
            "one, and try again with --sender"
        )
    found = collect_secrets([sender], trial.read_setting, easy_auth=trial.easy_auth)
    if sender.name in found.problems:
        raise Misconfigured(found.problems[sender.name].partition(": ")[2])
    secrets = await trial.add_keys(sender.proof, found.secrets[sender.name], request)
    try:
        proven = SCHEMES[scheme].verify(sender.proof, secrets, request, trial.now)
    except Unproven as error:
        raise Unproven(f"{error}{_explain_time(trial, secrets, request, sender)}") from None
    is_base = request.method == "POST" and split_address(request.url) == (None, None)
    is_covered = covers_address(sender.proof, has_query="?" in request.url)
    if not is_covered and not is_base:
        raise Unproven("its scheme does not sign the address: only a POST to the base is taken")
    return proven


def _explain_time(trial: Try, secrets: Secrets, request: SignedRequest, sender: Sender) -> str:
    """Return that the proof would hold at the time that the request states, if so."""
    signed = find_signed_time(sender.proof, request)
    if signed is None:
        return ""
    try:
        SCHEMES[get_scheme(sender.proof)].verify(sender.proof, secrets, request, signed)
    except Unproven:
        return ""
    seconds = (trial.now - signed).total_seconds()
    minutes = round(abs(seconds) / 60)
    way = "old" if seconds >= 0 else "ahead"
    at = signed.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f": the timestamp is {minutes} minutes {way}; with --at {at} the proof would hold"


def _describe_sent(attempt: _Attempt, captured: CapturedRequest, trial: Try) -> Content:
    """Return what would become of the content, with the body that was proven."""
    bodies = {remark: variant for variant, remark in list_bodies(captured)}
    request = build_request(bodies[attempt.remark], trial.root, attempt.sender.name)
    message_id = attempt.proven.message_id if attempt.proven else None
    return describe_content(request, attempt.sender, trial.limits, message_id)


def _is_shown(attempt: _Attempt) -> bool:
    return attempt.candidate is not None and not attempt.candidate.is_guess


def _list_shown(candidates: list[Candidate]) -> list[Candidate]:
    return [item for item in candidates if not item.is_guess][:_MAX_SHOWN]


def _describe(candidate: Candidate) -> str:
    title = f" ({candidate.title})" if candidate.title else ""
    return f"{candidate.scheme}{title}: {candidate.why}"


def _describe_request(captured: CapturedRequest, request: SignedRequest) -> Iterator[str]:
    where = "" if captured.target else "; its address is not said, so it counts as the sender's"
    yield f"request: {request.method}, {len(request.body)} bytes of body{where}"
    stated = captured.stated_length
    lengths = [len(variant.body) for variant, _ in list_bodies(captured)]
    if stated is not None and stated not in lengths:
        yield (
            f"note: Content-Length says {stated} bytes and the file has {len(captured.body)}: "
            f"{_EXACT}"
        )


def _describe_missing(request: SignedRequest) -> str:
    if request.headers.get("authorization", "").lower().startswith("basic "):
        return "Basic authentication is no scheme here: have the vendor send a token instead"
    return (
        "have the vendor sign, or send a secret header: without a secret of its own nothing tells "
        "it from anybody else"
    )


def _describe_proposal(attempt: _Attempt, request: SignedRequest, trial: Try) -> Iterator[str]:
    candidate, name = attempt.candidate, attempt.sender.name
    if candidate is None:
        return
    yield f"looks like: {_describe(candidate)}"
    if candidate.varying:
        yield f"varies from message to message: {', '.join(candidate.varying)}"
    else:
        yield "varies from message to message: no header, it is the same in each"
    yield from (f"note: {note}" for note in candidate.notes)
    if "types" in attempt.tables.get("rights", {}):
        yield "note: types are those of this request: add what else the vendor is to send"
    yield "put into senders.toml:"
    yield ""
    yield from (f"    {line}".rstrip() for line in render_tables(name, attempt.tables))
    yield ""
    for setting in list_secret_names(attempt.sender.proof):
        yield f"app setting with the secret: {setting}, as a Key Vault reference"
    yield from _describe_attempt(attempt, request, trial)


def _describe_attempt(attempt: _Attempt, request: SignedRequest, trial: Try) -> Iterator[str]:
    sender = attempt.sender
    root = trial.root or "{PUBLIC_URL}"
    is_by_key = get_scheme(sender.proof) == FUNCTION_KEY
    address = f"{root}/api/fhir" if is_by_key else f"{root}/api/senders/{sender.name}/fhir"
    yield f"address to give to the vendor: {address}"
    if attempt.proven is None:
        yield f"proof: NOT PROVEN: {attempt.reason}"
        if attempt.reason.endswith("is not set"):
            yield "note: set it in this environment, or name another one with --secret-setting"
        if "does not fit" in attempt.reason or "no signature fits" in attempt.reason:
            yield f"note: either the secret is another, or the bytes are: {_EXACT}"
        return
    remark = f", {attempt.remark}" if attempt.remark else ""
    yield f"proof: proven{remark}"
    if attempt.proven.message_id is not None:
        yield "repeats: known by the id that the proof covers"
    if attempt.proven.once is not None:
        yield "note: the token may be used once; whether it was used before, only the app knows"
    if not covers_address(sender.proof, has_query=False):
        yield "note: the address is not signed: only a POST to it is taken, so no polling either"


def _describe_content(content: Content) -> Iterator[str]:
    yield from (f"content: {line}" for line in content.lines)
