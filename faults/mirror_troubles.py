"""What goes wrong between FHIR and Dataverse, one function for each kind.

Each function takes the people and a number, does as much harm, and returns how many faults it has
injected itself. Faults that a service injects are counted there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from faults import injected, weather
from faults.mirror_people import EVENTS, People, Person, wait_a_little
from faults.mirror_verdict import Allowance
from faults.route import gather_limited

_LAG = 2.0  # seconds

Trouble = Callable[[People, int], Awaitable[int]]


async def lag_reads(people: People, number: int) -> int:
    """Reads show the state of two seconds ago: a new patient is unknown, a deleted one is there."""
    await people.route.change_fhir(readLag=_LAG)
    new = [people.make() for _ in range(number // 3)]
    others = people.choose(number - len(new))
    deleted = others[: len(others) // 2]
    await gather_limited([people.update(person) for person in (*new, *others[len(deleted) :])])
    await gather_limited([people.delete(person) for person in deleted])
    return len(new) + len(others)


async def restart_versions(people: People, number: int) -> int:
    """A hard delete, and the same id again; half of them by an import."""
    chosen = people.choose(number)

    async def restart(position: int, person: Person) -> None:
        await people.purge(person)
        await (people.load(person) if position % 2 else people.update(person))

    await gather_limited([restart(*pair) for pair in enumerate(chosen)])
    return len(chosen)


async def hang_dataverse(people: People, number: int) -> int:
    """Dataverse neither answers nor refuses; people come and change meanwhile."""
    hanging = max(number // 8, 1)
    await people.route.inject_fault("dataverse", kind="hang", next=hanging)
    new = [people.make() for _ in range(number // 2)]
    await gather_limited([people.update(person) for person in (*new, *people.choose(number // 2))])
    return 0


async def finish_late(people: People, number: int) -> int:
    """Dataverse finishes requests after everybody has given up; the patients are deleted then."""
    for _ in range(number):
        delay = people.random.choice((500, 3000, 6000, 12_000))
        fault = {"kind": "late", "method": "POST", "body": "changeset_", "delayMs": delay}
        await people.route.inject_fault("dataverse", **fault)
    new = [people.make() for _ in range(number)]

    async def come_and_go(person: Person) -> None:
        await people.update(person)
        await wait_a_little(people.random, 4)
        if people.random.random() < 0.5:
            await people.delete(person)
        else:
            await people.update(person)

    await gather_limited([come_and_go(person) for person in new])
    return 0


async def refuse_children(people: People, number: int) -> int:
    """A key of the organization refuses one number of each patient; the rest must arrive. Each
    round has another of the forms in which Dataverse may say so."""
    body = {
        "table": "msemr_medicalidentifier",
        "name": "new_value_key",
        "columns": ["msemr_identifiersystem", "msemr_value"],
    }
    url = f"{people.route.control_urls['dataverse']}/keys"
    (await people.route.http.post(url, json=body)).raise_for_status()
    form = next(people.refusals)
    url = f"{people.route.control_urls['dataverse']}/settings"
    (await people.route.http.post(url, json={"failedChangeSets": form})).raise_for_status()
    contested = [{"system": "urn:faults:contested", "value": "same"}]
    chosen = [*(people.make() for _ in range(number // 2)), *people.choose(number // 2)]
    await gather_limited([people.update(person, identifier=contested) for person in chosen])
    return len(chosen)


async def copy_work(people: People, number: int) -> int:
    """Several workers have the same patient at the same time, and two states of it."""
    chosen = people.choose(max(number // 4, 1))

    async def change_twice(person: Person) -> None:
        await people.update(person, copies=2)
        await people.update(person, copies=2)

    await gather_limited([change_twice(person) for person in chosen])
    return 4 * len(chosen)


async def cross_deletes(people: People, number: int) -> int:
    """Patients are changed and deleted, or deleted and brought back, and events cross."""
    chosen = people.choose(number)

    async def cross(position: int, person: Person) -> None:
        await people.update(person)
        await people.delete(person)
        if position % 2:
            await people.update(person)

    await gather_limited([cross(*pair) for pair in enumerate(chosen)])
    return len(chosen)


async def bring_weather(people: People, number: int) -> int:
    """Both services throttle, fail, hang up and answer nonsense."""
    fhir: list[dict[str, Any]] = [
        *({"kind": kind, "method": "GET"} for kind in ("reset", "cutoff", "broken")),
        *({"kind": "status", "status": status, "method": "GET"} for status in (429, 500, 503)),
    ]
    for _ in range(number):
        if people.random.random() < 0.4:
            fault = {**people.random.choice(fhir), "path": "Patient/"}
            await people.route.inject_fault("fhir", next=1, **fault)
        else:
            fault = people.random.choice(weather.DATAVERSE)
            await people.route.inject_fault("dataverse", next=1, **fault)
    by_sender = people.choose(number // 2)
    others = [p for p in people.choose(number) if p not in by_sender]
    await gather_limited([people.update(person) for person in others])
    await gather_limited([people.send(person) for person in by_sender])
    return 0


async def hide_behind_gateway(people: People, number: int) -> int:
    """A gateway, or a wrong path, answers 404 for patients who are there."""
    for position in range(number // 2):
        form = {"format": "json"} if position % 2 else {}
        fault = {"kind": "gateway", "method": "GET", "path": "Patient/", "next": 1, **form}
        await people.route.inject_fault("fhir", **fault)
    await gather_limited([people.update(person) for person in people.choose(number)])
    return 0


async def meddle(people: People, number: int) -> int:
    """Staff delete, merge, edit and deactivate rows; then the patient changes."""
    chosen = people.choose(number)
    deeds = (_delete_row, _merge_row, _edit_row, _deactivate_row)

    async def disturb(position: int, person: Person) -> None:
        key = await people.find_key(person)
        if key is not None:
            await deeds[position % len(deeds)](people, person, key)
        await people.update(person)

    await gather_limited([disturb(*pair) for pair in enumerate(chosen)])
    return len(chosen)


async def hand_over(people: People, number: int) -> int:
    """Staff make a row that of somebody else, or of another type of contact; then the patient
    changes. There may be no row of the patient afterwards, and nothing waits for ever."""
    taken = 0
    for person in people.choose(number):
        key = await people.find_key(person)
        if key is None:
            continue
        person.allowed = Allowance(missing=True)
        body: dict[str, Any] = {"msemr_contacttype": 935000001}  # a practitioner
        if taken % 2:
            stranger = f"S{len(people.strangers)}"
            body = {"msemr_azurefhirid": f"{stranger}-{key[:20]}", "lastname": f"{stranger}~0"}
            people.strangers[key] = (stranger, body["msemr_azurefhirid"])
        await people.ask_dataverse("PATCH", f"contacts({key})", json=body)
        await people.update(person)
        taken += 1
        if taken == max(number // 4, 1):
            break
    return taken


async def switch_routes(people: People, number: int) -> int:
    """A table is a virtual one for a while. What changes after it is mirrored again, is mirrored,
    whatever the workers have remembered."""
    new = [people.make("Organization") for _ in range(number)]
    await gather_limited([people.update(person) for person in new[: number // 2]])
    await _set_route(people, "virtual")
    # Both workers ask for the routes now, and remember them.
    await gather_limited([people.update(person) for person in new[: number // 4]])
    await asyncio.sleep(4)
    await _set_route(people, "dataverse")
    await gather_limited([people.update(person) for person in new])
    return len(new)


async def wait_by_the_thousand(people: People, number: int) -> int:
    """So many patients wait for one organization, which comes last."""
    clinic = people.make("Organization")
    waiting = [people.make(owner=clinic.identity) for _ in range(number)]
    await gather_limited([people.update(person) for person in waiting])
    # All of them must wait before the organization comes; the judge finds what is not there then.
    await people.route.wait_until_idle(others=(EVENTS,))
    await people.update(clinic)
    return 1


async def _set_route(people: People, route: str) -> None:
    url = f"{people.route.host.url}/api/data-routes"
    answer = await people.route.http.patch(url, json={"Organization": route})
    answer.raise_for_status()


async def _delete_row(people: People, _person: Person, key: str) -> None:
    await people.ask_dataverse("DELETE", f"contacts({key})")


async def _edit_row(people: People, person: Person, key: str) -> None:
    body = {"lastname": f"{person.name}#edited", "firstname": "By staff"}
    await people.ask_dataverse("PATCH", f"contacts({key})", json=body)


async def _deactivate_row(people: People, _person: Person, key: str) -> None:
    body = {"statecode": 1, "statuscode": 2}
    await people.ask_dataverse("PATCH", f"contacts({key})", json=body)


async def _merge_row(people: People, person: Person, key: str) -> None:
    kind = {"@odata.type": "Microsoft.Dynamics.CRM.contact"}
    # Another record of the same person. The merge moves the FHIR id into it.
    other = {"lastname": f"{person.name}#survivor", "msemr_contacttype": 935000000}
    survivor = await people.ask_dataverse("POST", "contacts", json=other)
    address = survivor.headers["odata-entityid"]
    body = {
        "Target": {**kind, "contactid": address.rpartition("(")[2].rstrip(")")},
        "Subordinate": {**kind, "contactid": key},
        "PerformParentingChecks": False,
    }
    await people.ask_dataverse("POST", "Merge", json=body)
    person.allowed = Allowance(merged=True)


# In the order in which each round has one.
TROUBLES: dict[str, Trouble] = {
    injected.STATES_LAGGED: lag_reads,
    injected.FINISHED_LATE: finish_late,
    injected.DELETES_CROSSED: cross_deletes,
    injected.GATEWAY_ANSWERED: hide_behind_gateway,
    injected.MIRROR_FAILED: bring_weather,
    injected.VERSIONS_RESTARTED: restart_versions,
    injected.WORK_COPIED: copy_work,
    injected.STAFF_MEDDLED: meddle,
    injected.DATAVERSE_HUNG: hang_dataverse,
    injected.CHILD_REFUSED: refuse_children,
    injected.ROUTE_SWITCHED: switch_routes,
    injected.ROW_TAKEN: hand_over,
}
ALL_KINDS = (injected.DEFINITIONS_HUNG, *TROUBLES, injected.CROWD_WAITED)
