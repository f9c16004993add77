"""`python -m local.hapi [COMMAND ...]`: run a command with FHIR_URL pointing at HAPI's server.

Without a command, the server runs until Ctrl-C. Where Java or Maven is missing, the command is
skipped, with the reason.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from local.hapi.server import OWN_URL, build_server, find_obstacle, make_part
from local.host.settings import CannotStart
from local.processes import PROJECT, Child
from local.services import ADDRESS, check_ports, find_free_ports, read_ports

LOG = PROJECT / ".local" / "hapi.log"


def main(command: list[str]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if obstacle := find_obstacle():
        print(f"skipped: {obstacle}")
        return 0
    try:
        ports = read_ports() if not command or os.environ.get("FHIR_PORT") else find_free_ports()
        check_ports(ports, ["fhir"])
        with Child(make_part(build_server(), ports.fhir, LOG)) as server:
            server.start()
            url = f"http://{ADDRESS}:{ports.fhir}/fhir"
            print(f"HAPI is ready: FHIR_URL={url}, its log is {LOG}", flush=True)
            if not command:
                signal.pause()
            env = {**os.environ, "FHIR_URL": url, "FHIR_SCOPE": "none", OWN_URL: url}
            return subprocess.run(command, env=env, check=False).returncode
    except KeyboardInterrupt:
        return 130 if command else 0
    except CannotStart as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
