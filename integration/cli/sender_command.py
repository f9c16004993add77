"""`python -m integration sender try FILE` and `sender check`: connect a vendor without guessing."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from integration.app.package_documents import SendersText
from integration.app.settings import (
    find_senders_file,
    read_delivery_settings,
    read_fetch_bases,
    read_sender_settings,
    read_setting,
)
from integration.check.senders import check_senders
from integration.cli.captured_request import CapturedRequest, parse_captured
from integration.cli.sender_content import ContentLimits
from integration.cli.sender_try import Try, try_candidates, try_sender
from integration.cli.terminal import PrintLine, read_file
from integration.core.errors import Misconfigured
from integration.fhir.grammar import RESOURCE_TYPES
from integration.senders.load import WrongSenders, read_senders
from integration.senders.model import Sender
from integration.senders.proofs.json_web_token import JsonWebToken
from integration.senders.proofs.proof import Proof, Secrets, SignedRequest

# Returns what a person types in, without showing it; None if there is no terminal.
AskSecret = Callable[[str], str | None]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the two actions, and the options of each."""
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    trying = actions.add_parser(
        "try",
        help="say of a request in a file who proves itself by it, or why nobody does",
        description="Say of a request in a file which scheme it looks like, what to put into "
        "senders.toml, whether the proof holds, and what would become of the content. Secrets come "
        "from the environment, or are asked for; they are never printed. Exit status 0: proven.",
    )
    trying.add_argument(
        "file",
        help="raw HTTP headers, an empty line and the body; or a curl command. - reads from the "
        "terminal",
    )
    trying.add_argument("--sender", metavar="NAME", help="try the sender of senders.toml alone")
    trying.add_argument("--name", help="the name that is proposed for a new sender")
    trying.add_argument(
        "--secret-setting",
        action="append",
        default=[],
        metavar="NAME",
        help="the environment variable that holds the secret (two during a rotation)",
    )
    trying.add_argument(
        "--at",
        type=parse_time,
        metavar="TIME",
        help="verify as of this time, such as 2026-03-02T07:30:00Z: for a request of earlier",
    )
    actions.add_parser(
        "check",
        help="check senders.toml and the settings with secrets",
        description="Check senders.toml and the settings that hold its secrets; print a line for "
        "each sender, with the address to give to it. Exit status 0: nothing is wrong.",
    )


def parse_time(text: str) -> datetime:
    """Return a time, in UTC unless it says otherwise. Raises ArgumentTypeError."""
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError("write a time like 2026-03-02T07:30:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def ask_on_terminal(name: str) -> str | None:
    """Ask for the value of a setting without echo."""
    if not sys.stderr.isatty():
        return None
    try:
        return getpass.getpass(f"{name} (not shown; Enter to go on without it): ") or None
    except EOFError:
        return None


async def fetch_keys(proof: Proof, secrets: Secrets, request: SignedRequest) -> Secrets:
    """Add the public keys of the issuer that a proof names. Raises Unavailable."""
    if not isinstance(proof, JsonWebToken):
        return secrets
    # Slow to import, and needed for tokens alone.
    from integration.app.http_clients import ClientContext
    from integration.app.identification import open_key_sets
    from integration.core.activity_recorder import ActivityRecorder

    async with AsyncExitStack() as stack:
        context = ClientContext(None, ActivityRecorder(), stack)
        return await open_key_sets([proof], context, {})(proof, secrets, request)


def run(
    chosen: argparse.Namespace, print_line: PrintLine, ask_secret: AskSecret = ask_on_terminal
) -> int:
    """Try: 0 if the request is proven, 1 if not. Check: 0 if nothing is wrong, else 1. 2: not
    done."""
    try:
        return (
            _run_try(chosen, print_line, ask_secret)
            if chosen.action == "try"
            else _run_check(print_line)
        )
    except WrongSenders as error:
        for problem in error.problems:
            print_line(problem)
        return 2
    except Misconfigured as error:
        print_line(str(error))
        return 2


def _run_try(chosen: argparse.Namespace, print_line: PrintLine, ask_secret: AskSecret) -> int:
    settings = read_sender_settings()
    limits = read_delivery_settings()
    trial = Try(
        read_setting=read_setting,
        ask_secret=ask_secret,
        add_keys=fetch_keys,
        now=chosen.at or datetime.now(UTC),
        root=settings.public_url,
        easy_auth=settings.easy_auth,
        name=chosen.name,
        secret_settings=tuple(chosen.secret_setting),
        limits=ContentLimits(bytes=limits.max_delivery_bytes, entries=limits.max_delivery_entries),
    )
    captured = _read_captured(chosen.file)
    if chosen.sender is not None:
        sender = _find_sender(chosen.sender, trial.secret_settings)
        lines, is_proven = asyncio.run(try_sender(trial, captured, sender))
    else:
        lines, is_proven = asyncio.run(try_candidates(trial, captured))
    for line in lines:
        print_line(line)
    return 0 if is_proven else 1


def _read_captured(file: str) -> CapturedRequest:
    """Read a request. Raises Misconfigured."""
    text = sys.stdin.buffer.read() if file == "-" else read_file(Path(file))
    captured = parse_captured(text)
    if captured.body_file is None:
        return captured
    folder = Path() if file == "-" else Path(file).parent
    return replace(captured, body=read_file(folder / captured.body_file), body_file=None)


def _find_sender(name: str, secret_settings: tuple[str, ...]) -> Sender:
    """Return a sender of the file, with the secrets of other settings if they are named."""
    file = find_senders_file()
    senders = read_senders(file, RESOURCE_TYPES) if file else {}
    if name not in senders:
        known = f"it names {', '.join(senders)}" if senders else "there is none"
        raise Misconfigured(f"senders.toml names no sender {name}: {known}")
    sender = senders[name]
    if not secret_settings or not sender.proof.secrets:
        return sender
    return replace(sender, proof=replace(sender.proof, secrets=secret_settings))


def _run_check(print_line: PrintLine) -> int:
    settings = read_sender_settings()
    if settings.senders_file is None:
        print_line(
            "there is no senders.toml: a deployment answers every sender with 401; copy a table of "
            "senders.sample.toml (docs/senders.md)"
        )
        return 2
    file = settings.senders_file
    senders = read_senders(file, RESOURCE_TYPES)
    checked = check_senders(
        senders.values(),
        read_setting,
        settings=settings,
        bases=read_fetch_bases(),
        document=SendersText(file.name, file.read_text("utf-8")),
    )
    for line in checked:
        print_line(line.text)
        for problem in line.problems:
            print_line(f"  {problem}")
    return 1 if any(line.problems for line in checked) else 0
