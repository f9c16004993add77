"""`python -m local.incidents NAME`: practise an incident on this laptop, with the pages alone.

All services run as with `make start`, and something is wrong. Find out what on the pages. Then
press Enter: what has to be done outside the relay, such as renewing a credential, is done. Do the
rest on the pages. Without a name it lists the incidents; `any` chooses one by chance.
"""

from __future__ import annotations

import asyncio
import base64
import random
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from azure.storage.queue.aio import QueueServiceClient

from local.host.settings import CannotStart
from local.processes import PROJECT, Child
from local.services import Running
from local.start import FOLDER, end_by_signals, run_route

_FILES = FOLDER / "incident"
_MAPS = PROJECT / "integration/mapping/maps/healthcare"
_EVENTS = "fhir-events"
_FOREVER = 1_000_000  # requests

_OLD_TOKEN = "the-token-of-last-year-0000"  # noqa: S105 -- of a sender that is made up

# Not secret: of senders that are made up, on this machine.
_TOKENS = {"clinic": "clinic-token-0123456789", "ward": "ward-token-0123456789"}
_SENDERS = "".join(
    f'[{name}.proof]\nscheme = "bearer"\nsecrets = ["{name.upper()}_TOKEN"]\n' for name in _TOKENS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The running services, while an incident is practised."""

    running: Running
    host: Child
    http: httpx.AsyncClient
    queues: QueueServiceClient

    async def post(self, body: Any, sender: str = "clinic", token: str | None = None) -> str:
        """Send a delivery. Return its id; "" if it was refused."""
        answer = await self.http.post(
            f"{self.host.url}/api/senders/{sender}/fhir",
            json=body,
            headers={
                "content-type": "application/fhir+json",
                "authorization": f"Bearer {token or _TOKENS[sender]}",
            },
        )
        return str(answer.headers.get("content-location", "")).rpartition("/")[2]

    async def fail(self, service: str, **fault: Any) -> None:
        """Have all requests to a service fail."""
        url = f"{self._find_control(service)}/faults"
        (await self.http.post(url, json={"next": _FOREVER, **fault})).raise_for_status()

    async def heal(self) -> None:
        """Have both services do what they are asked to again."""
        for service in ("fhir", "dataverse"):
            (await self.http.delete(f"{self._find_control(service)}/faults")).raise_for_status()

    async def slow_down(self, milliseconds: int) -> None:
        """Let each request to the FHIR server take this long."""
        url = f"{self._find_control('fhir')}/latency"
        (await self.http.post(url, json={"requestMs": milliseconds})).raise_for_status()

    async def wait_for_attention(self, kind: str, number: int = 1, seconds: float = 90) -> None:
        """Wait until so many things of a kind need attention. Raises CannotStart after a time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            answer = await self.http.get(f"{self.host.url}/api/attention?_count=500")
            found = [concern["kind"] for concern in answer.json()["attention"]]
            if found.count(kind) >= number:
                return
            await asyncio.sleep(0.5)
        raise CannotStart(f"the incident has not come about: no {number} of {kind}")

    async def restart(self, **settings: str) -> None:
        """Start the host with other settings, as a deployment does."""
        self.host.stop()
        self.host.part = replace(self.host.part, env={**self.host.part.env, **settings})
        await asyncio.to_thread(self.host.start)

    def _find_control(self, service: str) -> str:
        if service == "fhir":
            return f"{self.running.fhir_url.removesuffix('/fhir')}/control"
        return f"{self.running.dataverse_url}/control"


Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that is wrong. `begin`: makes it so; `mend`: does what has to be done outside the
    relay; `cause`: what is to be found out; `settings`: of the host."""

    cause: str
    remedy: str
    begin: Act
    mend: Act
    settings: Mapping[str, str]


def build_patient(number: int, **elements: Any) -> dict[str, Any]:
    """Build a patient who is made up."""
    return {
        "resourceType": "Patient",
        "id": f"practice-{number}",
        "name": [{"family": f"Practice{number}", "given": ["Anna"]}],
        "birthDate": "1980-02-01",
        **elements,
    }


def build_batch(patients: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Build a batch that updates patients, or creates them."""
    return {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [
            {"resource": patient, "request": {"method": "PUT", "url": f"Patient/{patient['id']}"}}
            for patient in patients
        ],
    }


async def send_usual(scene: Scene, begin: int = 0, number: int = 6) -> None:
    """Send what comes on any day."""
    for index in range(number):
        first = begin + index * 2
        sender = ("clinic", "ward")[index % 2]
        await scene.post(build_batch([build_patient(first), build_patient(first + 1)]), sender)


async def _do_nothing(_: Scene) -> None:
    """There is nothing to do outside the relay."""


async def _heal(scene: Scene) -> None:
    await scene.heal()


async def _begin_expired_credential(scene: Scene) -> None:
    await scene.fail("fhir", kind="status", status=401)
    await send_usual(scene, begin=100)
    await scene.wait_for_attention("waiting", 6)


async def _begin_fhir_away(scene: Scene) -> None:
    await scene.fail("fhir", kind="reset")
    await send_usual(scene, begin=100)
    await asyncio.sleep(8)


async def _begin_throttling(scene: Scene) -> None:
    await scene.fail("dataverse", kind="throttle", retryAfter=20)
    await send_usual(scene, begin=100)
    await asyncio.sleep(8)


async def _begin_full_queue(scene: Scene) -> None:
    await scene.slow_down(60_000)
    await asyncio.gather(*(send_usual(scene, begin=100 + 12 * n) for n in range(10)))


async def _end_full_queue(scene: Scene) -> None:
    await scene.slow_down(0)


async def _begin_broken_map(scene: Scene) -> None:
    # After the start: provisioning refuses a map that cannot be read.
    await scene.restart(MAPS=str(_FILES / "map-error"))
    await _begin_wrong_map(scene)


async def _begin_wrong_map(scene: Scene) -> None:
    await send_usual(scene, begin=100)
    await scene.wait_for_attention("row-waiting")


async def _end_wrong_map(scene: Scene) -> None:
    await scene.restart(MAPS="")


async def _begin_bad_date(scene: Scene) -> None:
    for number in range(3):
        good, bad = build_patient(200 + number), build_patient(300 + number, birthDate="30.02.1980")
        await scene.post(build_batch([good, bad]), "ward")
    await scene.wait_for_attention("entries", 3)


async def _begin_wrong_signature(scene: Scene) -> None:
    for number in range(25):
        await scene.post(build_batch([build_patient(400 + number)]), "ward", token=_OLD_TOKEN)


async def _begin_parked(scene: Scene) -> None:
    await scene.fail("fhir", kind="status", status=503)
    ids = {await scene.post(build_batch([build_patient(500 + number)])) for number in range(3)}
    await scene.wait_for_attention("parked", len(ids))
    await scene.heal()


async def _begin_poison(scene: Scene) -> None:
    text = base64.b64encode(b"this is no event").decode()
    await scene.queues.get_queue_client(_EVENTS).send_message(text)
    until = time.monotonic() + 90
    poison = scene.queues.get_queue_client(f"{_EVENTS}-poison")
    while time.monotonic() < until:
        found = await poison.get_queue_properties()
        if found.approximate_message_count:
            return
        await asyncio.sleep(0.5)
    raise CannotStart("the incident has not come about: the message was taken")


async def _end_poison(scene: Scene) -> None:
    await scene.queues.get_queue_client(f"{_EVENTS}-poison").clear_messages()


async def _begin_early_switch(scene: Scene) -> None:
    url = f"{scene.host.url}/api/data-routes"
    (await scene.http.patch(url, json={"Observation": "dataverse"})).raise_for_status()
    observation = {
        "resourceType": "Observation",
        "id": "practice-1",
        "status": "final",
        "code": {"text": "Temperature"},
        "subject": {"reference": "Patient/practice-0"},
    }
    entry = {"resource": observation, "request": {"method": "PUT", "url": "Observation/practice-1"}}
    await scene.post({"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    await scene.wait_for_attention("row-waiting")


async def _begin_parked_rows(scene: Scene) -> None:
    await scene.fail("dataverse", kind="status", status=500)
    await scene.post(build_batch([build_patient(600 + number) for number in range(3)]))
    await scene.wait_for_attention("row-parked", 3)
    await scene.heal()


async def _begin_duplicate(scene: Scene) -> None:
    base = scene.running.dataverse_url
    key = {"table": "contact", "name": "by_mail", "columns": ["emailaddress1"]}
    (await scene.http.post(f"{base}/control/keys", json=key)).raise_for_status()
    contact = {"lastname": "Practice", "emailaddress1": "anna@example.org"}
    (await scene.http.post(f"{base}/api/data/v9.2/contacts", json=contact)).raise_for_status()
    mail = [{"system": "email", "value": "anna@example.org"}]
    await scene.post(build_batch([build_patient(700, telecom=mail)]))
    await scene.wait_for_attention("row-refused")


async def _end_duplicate(scene: Scene) -> None:
    base = f"{scene.running.dataverse_url}/api/data/v9.2/contacts"
    found = await scene.http.get(base, params={"$filter": "lastname eq 'Practice'"})
    for row in found.json()["value"]:
        (await scene.http.delete(f"{base}({row['contactid']})")).raise_for_status()


def write_files(folder: Path = _FILES) -> None:
    """Write the senders, and the maps that are wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    text = (_MAPS / "patient.toml").read_text("utf-8")
    for name, right, wrong in (
        ("map-error", 'path = "%home_phone.value"', 'path = "%home_phone.value.first("'),
        ("wrong-column", 'column = "telephone2"', 'column = "telephone22"'),
    ):
        (folder / name).mkdir(parents=True)
        if right not in text:
            raise CannotStart(f"the map of Patient has no {right} that could be made wrong")
        (folder / name / "patient.toml").write_text(text.replace(right, wrong, 1), "utf-8")
    (folder / "senders.toml").write_text(_SENDERS, "utf-8")


def _incident(
    cause: str,
    remedy: str,
    begin: Act,
    mend: Act = _do_nothing,
    **settings: str,
) -> Incident:
    return Incident(cause=cause, remedy=remedy, begin=begin, mend=mend, settings=settings)


INCIDENTS: Mapping[str, Incident] = {
    "expired-credential": _incident(
        "the FHIR server refuses the app's credential", "renew it", _begin_expired_credential, _heal
    ),
    "map-error": _incident(
        "the map of Patient has a path that cannot be read",
        "deploy the mended map",
        _begin_broken_map,
        _end_wrong_map,
    ),
    "wrong-column": _incident(
        "the map of Patient names a column that Dataverse does not have",
        "deploy the mended map",
        _begin_wrong_map,
        _end_wrong_map,
        MAPS=str(_FILES / "wrong-column"),
    ),
    "full-queue": _incident(
        "the FHIR server is slow, and deliveries pile up",
        "have the FHIR server scaled",
        _begin_full_queue,
        _end_full_queue,
    ),
    "fhir-away": _incident(
        "the FHIR server does not answer", "have it started", _begin_fhir_away, _heal
    ),
    "dataverse-throttled": _incident(
        "Dataverse throttles", "stop what else uses up its limits", _begin_throttling, _heal
    ),
    "bad-date": _incident(
        "the sender ward sends dates of birth that are none",
        "tell the sender; correct what came",
        _begin_bad_date,
    ),
    "wrong-signature": _incident(
        "the sender ward proves itself with an old secret",
        "tell the sender",
        _begin_wrong_signature,
    ),
    "poison-message": _incident(
        "somebody puts messages into the queue of the FHIR service's events that are no events",
        "have that stopped, and the message deleted",
        _begin_poison,
        _end_poison,
        # A message is tried five times before it is put aside.
        AzureFunctionsJobHost__extensions__queues__visibilityTimeout="00:00:01",
    ),
    "parked-deliveries": _incident(
        "the FHIR server failed for longer than deliveries are tried, and they were parked",
        "nothing: it works again",
        _begin_parked,
        MAX_AGE="5",
    ),
    "route-too-early": _incident(
        "Observation was switched to Dataverse, which has no table for it",
        "switch it back",
        _begin_early_switch,
    ),
    "parked-rows": _incident(
        "Dataverse failed for longer than rows are tried, and they were parked",
        "nothing: it works again",
        _begin_parked_rows,
        MAX_AGE="5",
    ),
    "duplicate-contact": _incident(
        "a contact of the staff's has the address of a patient that is new",
        "delete or merge the contact in Dataverse",
        _begin_duplicate,
        _end_duplicate,
    ),
}


def _practise(running: Running, host: Child, incident: Incident) -> None:
    # Between its steps no loop runs, so Ctrl-C ends the reading of a line, too.
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        scene = runner.run(_open_scene(running, host, stack))
        try:
            runner.run(send_usual(scene))
            runner.run(_act(incident.begin, scene))
            print(f"\nsomething is wrong: {host.url}/api/pages/", flush=True)
            print("press Enter when you know what it is", flush=True)
            sys.stdin.readline()
            print(f"cause: {incident.cause}", flush=True)
            runner.run(_act(incident.mend, scene))
            print(f"done outside the relay: {incident.remedy}", flush=True)
            print("do the rest on the pages; press Enter to end", flush=True)
            sys.stdin.readline()
        finally:
            runner.run(stack.aclose())


async def _open_scene(running: Running, host: Child, stack: AsyncExitStack) -> Scene:
    http = httpx.AsyncClient(timeout=90, trust_env=False)
    queues = QueueServiceClient.from_connection_string(running.storage)
    return Scene(
        running=running,
        host=host,
        http=await stack.enter_async_context(http),
        queues=await stack.enter_async_context(queues),
    )


async def _act(act: Act, scene: Scene) -> None:
    await act(scene)


def main(arguments: Sequence[str]) -> int:
    """Practise the incident of this name."""
    chosen = random.choice(list(INCIDENTS))  # noqa: S311 -- no secret
    name = chosen if arguments == ["any"] else "".join(arguments)
    if name not in INCIDENTS:
        print("python -m local.incidents NAME, or any:\n  " + "\n  ".join(INCIDENTS))
        return 2
    incident = INCIDENTS[name]
    tokens = {f"{sender.upper()}_TOKEN": token for sender, token in _TOKENS.items()}
    senders = Path(_FILES / "senders.toml")
    settings = {"SENDERS": str(senders), **tokens, **incident.settings}
    end_by_signals()
    try:
        write_files()
        with run_route(settings) as (running, host):
            _practise(running, host, incident)
    except KeyboardInterrupt:
        pass  # it is how a program in a terminal is ended
    except CannotStart as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
