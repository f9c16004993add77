"""`python -m local.demo`: send the samples, and print what reached FHIR and Dataverse."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from integration.app.settings import read_settings
from integration.core.errors import Misconfigured
from local.access import build_fhir_headers
from local.host.settings import CannotStart
from local.processes import PROJECT, Child
from local.samples import Sample, load_samples
from local.services import Running, read_ports, run_services, start_host

FOLDER = PROJECT / ".local" / "demo"
DELIVERY_SECONDS = 120.0
CONTACT_SECONDS = 30.0
PAUSE = 0.1
READS_PER_BATCH = 200  # resources read from FHIR with one request
# The columns of a contact that hold the patient's FHIR id and version.
_ID, _VERSION = "msemr_azurefhirid", "msemr_azurefhirversion"

Json = dict[str, Any]
Contacts = Mapping[str, Sequence[Json]]  # by the patient's id


@dataclass(frozen=True, slots=True)
class Delivery:
    """A sample that was sent, and the response to each of its entries once it is done."""

    sample: Sample
    address: str | None  # None: it was not accepted
    answers: Sequence[Json] | None = None

    @property
    def written(self) -> list[str]:
        """Type/id of each resource that the response bundle reports as written."""
        locations = [answer["location"] for answer in self.answers or () if _is_written(answer)]
        return [place.partition("/_history/")[0] for place in locations]

    @property
    def refused(self) -> int:
        return 0 if self.answers is None else self.sample.entries - len(self.written)


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    begun = time.monotonic()
    try:
        with ExitStack() as stack:
            ports = read_ports()
            _print(f"starting; logs are in {folder}")
            running = stack.enter_context(run_services(ports, folder, tell=_print))
            # No function keys: whoever sends the samples has none.
            settings = {**running.settings(), "HOST_FUNCTION_KEYS": ""}
            host = stack.enter_context(start_host(settings, ports.host, folder))
            _print(f"host is ready, {time.monotonic() - begun:.1f} s after the start\n")
            failed, line = asyncio.run(_run_demo(settings, running, host))
    except KeyboardInterrupt:
        return _report_failure(f"stopped; logs are in {folder}")
    except (CannotStart, Misconfigured) as error:
        return _report_failure(str(error))
    except httpx.TransportError as error:
        where = f"{error.request.url.scheme}://{error.request.url.netloc.decode()}"
        return _report_failure(
            f"{where} did not respond ({type(error).__name__}); logs are in {folder}"
        )
    code = _report_failure(f"not all arrived; logs are in {folder}") if failed else 0
    if not failed:
        shutil.rmtree(folder)
    _print(line)
    return code


async def _run_demo(settings: Mapping[str, str], running: Running, host: Child) -> tuple[int, str]:
    """Run the demo. Return the number of failures and the last line to print."""
    options = read_settings({**os.environ, **settings})
    host_http = httpx.AsyncClient(timeout=60.0, trust_env=False)
    fhir = httpx.AsyncClient(timeout=110.0, headers=build_fhir_headers(options.fhir.scope))
    async with host_http, fhir:
        health = await host_http.get(f"{host.url}/api/upstreams")
        if health.status_code != 200:
            raise CannotStart(f"the health check failed: {health.text}; see {host.part.log}")
        _print("deliveries          entries")
        sent = await asyncio.gather(
            *(_send(host_http, host.url, sample) for sample in load_samples())
        )
        end = time.monotonic() + DELIVERY_SECONDS
        deliveries = [await _wait_for_delivery(host_http, delivery, end) for delivery in sent]
        written = sorted({identity for delivery in deliveries for identity in delivery.written})
        found = await _read_versions(fhir, options.fhir.url, written)
        _print_resources(written, found)
        patients = {k.removeprefix("Patient/"): found[k] for k in found if k[:8] == "Patient/"}
        contacts = await _wait_for_contacts(host_http, running.dataverse_url, patients)
        _print_contacts(patients, contacts)
    done_count = sum(delivery.answers is not None for delivery in deliveries)
    refused = sum(delivery.refused for delivery in deliveries)
    contact_count = sum(_is_shown(contacts, *patient) for patient in patients.items())
    missing = (
        len(deliveries) - done_count + len(written) - len(found) + len(patients) - contact_count
    )
    counts = f"deliveries={done_count} resources={len(found)} contacts={contact_count}"
    return refused + missing, f"\ndemo: {counts} failed={refused + missing}"


async def _send(http: httpx.AsyncClient, host: str, sample: Sample) -> Delivery:
    headers = {"content-type": sample.content_type, **sample.headers}
    url = host + sample.path
    answer = await http.request(sample.method, url, content=sample.body, headers=headers)
    if answer.status_code != 202:
        _print(f"  {sample.name} was not accepted: answered {answer.status_code} {answer.text}")
    return Delivery(sample, answer.headers.get("content-location"))


async def _wait_for_delivery(http: httpx.AsyncClient, delivery: Delivery, end: float) -> Delivery:
    """Poll the delivery until it is done. Print its progress on one line."""
    if delivery.address is None:
        return delivery
    sample, last_progress = delivery.sample, ""
    _print(f"  {sample.name:<18} {sample.entries:>6}  ", end="")
    while time.monotonic() < end:
        answer = await http.get(delivery.address)
        if answer.status_code == 200:
            ended = replace(delivery, answers=[e["response"] for e in answer.json()["entry"]])
            way = await _describe_split(http, delivery.address)
            _print(f"done: {len(ended.written)} written, {ended.refused} refused{way}")
            for refused in [entry for entry in ended.answers or () if not _is_written(entry)][:5]:
                issues = refused.get("outcome", {}).get("issue", [{}])
                _print(f"    {refused['status']} {issues[0].get('diagnostics', 'no reason given')}")
            return ended
        progress = answer.headers.get("x-progress", f"answered {answer.status_code}")
        if progress != last_progress:
            _print(progress.replace(f" of {sample.entries} entries", ""), end="; ")
        last_progress = progress
        if progress.startswith("parked") or answer.status_code == 404:
            break
        await asyncio.sleep(PAUSE)
    _print("not done in time")
    return delivery


async def _describe_split(http: httpx.AsyncClient, address: str) -> str:
    """Return a text that says whether a transaction was split; empty for other kinds."""
    root, id_ = address.partition("/api/")[0], address.rpartition("/")[2]
    listed = (await http.get(f"{root}/api/deliveries")).json().get("deliveries", [])
    item: Json = next((item for item in listed if item["id"] == id_), {})
    if item.get("kind") != "transaction":
        return ""
    return f"; split into {item['units']} transactions" if item["split"] else "; kept whole"


async def _read_versions(
    http: httpx.AsyncClient, url: str, identities: Sequence[str]
) -> dict[str, str]:
    """Return the version of each resource that exists in FHIR, by Type/id."""
    found: dict[str, str] = {}
    for start in range(0, len(identities), READS_PER_BATCH):
        requested = identities[start : start + READS_PER_BATCH]
        reads = [{"request": {"method": "GET", "url": identity}} for identity in requested]
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": reads}
        answer = await http.post(url, json=bundle)
        if answer.status_code != 200:
            raise CannotStart(f"the FHIR server answered {answer.status_code} to a batch of reads")
        for entry in answer.json()["entry"]:
            resource = entry.get("resource", {})
            if (identity := f"{resource.get('resourceType')}/{resource.get('id')}") in requested:
                found[identity] = resource["meta"]["versionId"]
    return found


async def _wait_for_contacts(
    http: httpx.AsyncClient, url: str, patients: Mapping[str, str]
) -> Contacts:
    """Wait until each patient has its contact, at most CONTACT_SECONDS. Return the contacts."""
    end = time.monotonic() + CONTACT_SECONDS
    while True:
        contacts = await _read_contacts(http, url, patients)
        done = all(_is_shown(contacts, *patient) for patient in patients.items())
        if done or time.monotonic() > end:
            return contacts
        await asyncio.sleep(PAUSE)


async def _read_contacts(http: httpx.AsyncClient, url: str, patients: Iterable[str]) -> Contacts:
    which = [f"{_ID} eq '{patient}'" for patient in patients] or ["fullname eq ''"]
    columns = f"fullname,birthdate,gendercode,{_ID},{_VERSION}"
    query = {"$select": columns, "$filter": " or ".join(which)}
    headers = {"prefer": 'odata.include-annotations="*"'}
    answer = await http.get(f"{url}/api/data/v9.2/contacts", params=query, headers=headers)
    if answer.status_code != 200:
        raise CannotStart(f"Dataverse answered {answer.status_code} to a query of contacts")
    return {id_: [row for row in answer.json()["value"] if row[_ID] == id_] for id_ in patients}


def _is_written(answer: Json) -> bool:
    return answer["status"].startswith("2") and "location" in answer


def _is_shown(contacts: Contacts, patient: str, version: str) -> bool:
    """Whether the patient has exactly one contact, of the version in FHIR."""
    return [row[_VERSION] for row in contacts[patient]] == [version]


def _print_resources(written: Iterable[str], found: Iterable[str]) -> None:
    existing = Counter(identity.partition("/")[0] for identity in found)
    _print("\nresources              written  in FHIR")
    for kind, number in Counter(identity.partition("/")[0] for identity in written).items():
        _print(f"  {kind:<20} {number:>7}  {existing[kind]:>7}")


def _print_contacts(patients: Iterable[str], contacts: Contacts) -> None:
    _print(f"\n{'patients':<38} {'contact in Dataverse':<22} {'born':<10} {'gender':<8} version")
    for patient in patients:
        if len(contacts[patient]) != 1:
            _print(f"  {patient:<36} {len(contacts[patient])} rows")
        for row in contacts[patient]:
            gender = row.get("gendercode@OData.Community.Display.V1.FormattedValue", "-")
            columns = f"{row['fullname']:<22} {row['birthdate'] or '-':<10} {gender:<8}"
            _print(f"  {patient:<36} {columns} {row[_VERSION]}")


def _report_failure(why: str) -> int:
    print(f"demo: {why}", file=sys.stderr, flush=True)
    return 1


def _print(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


if __name__ == "__main__":
    sys.exit(main())
