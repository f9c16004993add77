"""The commands of `python -m integration`. Each has a module with `add_options` and `run`."""

from __future__ import annotations

import argparse
from importlib import import_module

from integration.cli.local_settings import use_local_settings
from integration.cli.terminal import PrintLine, print_line
from integration.core.errors import Misconfigured

# Name, module and description. Only the module of the chosen command is imported: some of them
# import the whole app.
_COMMANDS = (
    (
        "plan",
        "integration.cli.plan_command",
        "show what the relay would send to the FHIR server for a delivery",
    ),
    (
        "map",
        "integration.cli.map_command",
        "show which rows the entity maps make from resources, and why",
    ),
    (
        "toolkit",
        "integration.cli.toolkit_command",
        "convert the maps of Microsoft's Data integration toolkit",
    ),
    (
        "sender",
        "integration.cli.sender_command",
        "try a request of a vendor's (sender try FILE), and check senders.toml (sender check)",
    ),
    (
        "config",
        "integration.cli.config_command",
        "show, try, publish and roll back maps, senders and data routes",
    ),
    (
        "provision",
        "integration.provision.command",
        "set Dataverse up: add what the relay needs there",
    ),
    (
        "check",
        "integration.check.command",
        "check that this identity can reach and use every service, as the app will",
    ),
    (
        "status",
        "integration.cli.status_command",
        "show queues, open deliveries, senders, upstreams and housekeeping, from storage alone",
    ),
    (
        "reconcile",
        "integration.cli.reconcile_command",
        "find rows that differ from FHIR, and repair them",
    ),
)


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status.

    0: done, and nothing is left to do. 1: done, but a person should look at what was printed.
    2: not done.
    """
    chosen = _build_parser(arguments).parse_args(arguments)
    if chosen.local:
        try:
            use_local_settings()
        except Misconfigured as error:
            print_line(str(error))
            return 2
    status: int = chosen.run(chosen, print_line)
    return status


def _ask_for_command(_: argparse.Namespace, print_line: PrintLine) -> int:
    print_line("the command must come first: python -m integration COMMAND --help")
    return 2


def _build_parser(arguments: list[str]) -> argparse.ArgumentParser:
    """Declare every command, and the options of the one that the arguments begin with."""
    parser = argparse.ArgumentParser(
        prog="python -m integration",
        description="Commands for setting up, checking and repairing the relay. They read the "
        "settings of the app from the environment; with --local, those of `make start`.",
        epilog="python -m integration COMMAND --help shows the options of a command.",
    )
    parser.set_defaults(local=False, run=_ask_for_command)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module_name, text in _COMMANDS:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if arguments[:1] == [name]:
            module = import_module(module_name)
            module.add_options(command)
            command.add_argument(
                "--local",
                action="store_true",
                help="use the services that `make start` runs on this machine",
            )
            command.set_defaults(run=module.run)
    return parser
