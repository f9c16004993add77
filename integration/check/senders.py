"""Check the senders: what each is told, what it may do, and what of it an operator must mend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from integration.app.identification import find_missing_bases
from integration.app.package_documents import SendersText
from integration.app.settings import SenderSettings, read_setting
from integration.check import remedies
from integration.check.report import CheckResult, report_failure, report_ok, report_warning
from integration.core.errors import Misconfigured
from integration.fhir.grammar import RESOURCE_TYPES
from integration.senders.load import find_lines, parse_senders
from integration.senders.model import Sender
from integration.senders.render import describe_rights, list_secret_names
from integration.senders.schemes import FUNCTION_KEY, collect_secrets, get_scheme

_NAME = "senders"

ReadSetting = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderLine:
    """A sender in one line, and what is wrong with it: `file:line: what, and what to do`.
    `is_stopped`: the app answers it with 500, or is not started."""

    name: str
    text: str
    problems: tuple[str, ...] = ()
    is_stopped: bool = False


def check_senders(
    senders: Iterable[Sender],
    read_setting: ReadSetting,
    *,
    settings: SenderSettings,
    bases: Collection[str],
    document: SendersText,
) -> list[SenderLine]:
    """Return a line for each sender of a document. `bases`: those of FETCH_FROM."""
    listed = list(senders)
    lines, file = find_lines(document.text), document.name
    stopped = collect_secrets(listed, read_setting, easy_auth=settings.easy_auth).problems
    missing = find_missing_bases(listed, bases)
    root = settings.public_url or "{PUBLIC_URL}"
    found = []
    for sender in listed:
        name = sender.name
        proof = f"{name}.proof"
        keys = ("secrets", "gateway_secrets", "")
        place = f"{file}:{next((lines[proof, key] for key in keys if (proof, key) in lines), 1)}"
        texts = list(_find_secret_problems(sender, read_setting, settings, stopped))
        problems = [f"{place}: {text}" for text in texts]
        if name in missing:
            row = lines.get((f"{name}.policy", "base"), 1)
            problems.append(f"{file}:{row}: FETCH_FROM does not hold {missing[name]}: add it there")
        is_stopped = name in stopped or name in missing
        address = f"{root}/api/senders/{name}/fhir"
        if get_scheme(sender.proof) == FUNCTION_KEY:
            address = f"{root}/api/fhir"
        found.append(
            SenderLine(
                name=name,
                text=f"{name}: {address}; {get_scheme(sender.proof)}; "
                f"{describe_rights(sender.rights)}; {'ok' if not problems else 'see below'}",
                problems=tuple(problems),
                is_stopped=is_stopped,
            )
        )
    return found


def _find_secret_problems(
    sender: Sender, read_setting: ReadSetting, settings: SenderSettings, stopped: Collection[str]
) -> Iterator[str]:
    """Yield what is wrong with the settings of a sender; of two during a rotation, with each."""
    if sender.name in stopped:
        found = collect_secrets([sender], read_setting, easy_auth=settings.easy_auth)
        yield from (text.partition(": ")[2] for text in found.problems.values())
        return
    for name in list_secret_names(sender.proof):
        if not read_setting(name):
            yield f"the setting {name} is not set: the other one serves alone"


def report_senders(
    settings: SenderSettings,
    bases: Collection[str],
    document: SendersText | None,
) -> list[CheckResult]:
    """Return the results for `python -m integration check`: of the document, or of each sender.
    `document`: that of the configuration in use."""
    if document is None:
        return [report_warning(_NAME, "there is no senders.toml", remedies.SENDERS)]
    try:
        senders = parse_senders(document.text, RESOURCE_TYPES, document.name)
    except Misconfigured as error:
        return [report_failure(_NAME, str(error), remedies.SENDERS)]
    checked = check_senders(
        senders.values(), read_setting, settings=settings, bases=bases, document=document
    )
    return [_report_line(line) for line in checked]


def _report_line(line: SenderLine) -> CheckResult:
    name = f"sender {line.name}"
    found = "; ".join(line.problems)
    if line.is_stopped:
        return report_failure(name, found, remedies.SENDER)
    if line.problems:
        return report_warning(name, found, remedies.SENDER)
    return report_ok(name, line.text.partition(": ")[2].removesuffix("; ok"))
