"""Map a Patient with hand-written code: the baseline for the mapping engine.

It fills the same columns, but checks no lengths or types and reports nothing unmapped.
"""

from __future__ import annotations

from typing import Any

from integration.mapping.model import Concept, Lookup

CONTACT_KIND = 935000000
LANGUAGE, CONTACT_ROLE, LINK_TYPE = 935000068, 935000028, 935000071
GENDERS = {"male": 1, "female": 2, "other": 935000000, "unknown": 935000001}
MARITAL = {"S": 935000007, "M": 2, "D": 3, "W": 4, "A": 935000000, "I": 935000001, "L": 935000002}
MARITAL |= {"T": 935000003, "U": 935000004, "UNK": 935000005, "P": 935000006}
NAME_USES = dict(
    zip(
        ("usual", "official", "temp", "nickname", "maiden", "old", "anonymous"),
        range(935000000, 935000007),
        strict=True,
    )
)
SYSTEMS = {"phone": 935000000, "email": 935000001, "fax": 935000002, "pager": 935000003}
SYSTEMS |= {"sms": 935000004}
USES = {"home": 935000000, "work": 935000001, "temp": 935000002, "mobile": 935000003}
TYPES = {"DL": 935000000, "PPN": 935000001, "BRN": 935000002, "MR": 935000003, "MCN": 935000004}
TYPES |= {"EN": 935000005, "TAX": 935000006, "NIIP": 935000007, "PRN": 935000008, "MD": 935000009}
TYPES |= {"DR": 935000010, "ACSN": 935000011}
IDENTIFIER_USES = {"usual": 935000000, "official": 935000001, "temp": 935000002}
IDENTIFIER_USES |= {"secondary": 935000003}

Json = dict[str, Any]


def map_patient(patient: Json) -> tuple[Json, list[Json]]:
    """Return the contact row and its child rows (identifiers, then links)."""
    meta = patient.get("meta", {})
    row: Json = {
        "msemr_azurefhirid": patient["id"],
        "msemr_azurefhirversion": meta.get("versionId"),
        "msemr_azurefhirlastupdatedon": meta.get("lastUpdated"),
        "msemr_contacttype": CONTACT_KIND,
        "statecode": 0 if patient.get("active", True) else 1,
        "gendercode": GENDERS.get(patient.get("gender", "")),
        "birthdate": patient.get("birthDate"),
        "msemr_deceaseddate": patient.get("deceasedDateTime", "")[:10] or None,
        "familystatuscode": _map_marital_status(patient),
        "msemr_multiplebirth": patient.get("multipleBirthInteger"),
        "msemr_medicalrecordnumber": _find_record_number(patient.get("identifier", [])),
    }
    _set_animal(row, patient)
    _set_names(row, patient.get("name", []))
    _set_telecoms(row, patient.get("telecom", []))
    _set_addresses(row, patient.get("address", []))
    _set_languages(row, patient.get("communication", []))
    _set_contacts(row, patient.get("contact", []))
    _set_references(row, patient)
    identifiers = [_map_identifier(item) for item in patient.get("identifier", [])]
    return row, identifiers + [_map_link(item) for item in patient.get("link", [])]


def _set_period(row: Json, item: Json, start: str, end: str) -> None:
    period = item.get("period", {})
    row[start] = period.get("start", "")[:10] or None
    row[end] = period.get("end", "")[:10] or None


def _set_names(row: Json, names: list[Json]) -> None:
    families = [name for name in names if "family" in name]
    name = (
        next((name for name in families if name.get("use") == "usual"), None)
        or next((name for name in families if name.get("use") == "official"), None)
        or next((name for name in families if name.get("use") != "old"), None)
        or next(iter(names), {})
    )
    given = name.get("given", [])
    row["firstname"] = given[0] if given else None
    row["middlename"] = " ".join(given[1:]) or None
    row["lastname"] = name.get("family") or (None if given else name.get("text"))
    row["salutation"] = " ".join(name.get("prefix", [])) or None
    row["suffix"] = " ".join(name.get("suffix", [])) or None
    nick = next((name for name in names if name.get("use") == "nickname"), {})
    row["nickname"] = next(iter(nick.get("given", [])), nick.get("text"))
    row["msemr_name1use"] = NAME_USES.get(name.get("use", ""))
    _set_period(row, name, "msemr_name1startdate", "msemr_name1enddate")
    _set_named(
        row,
        names,
        "official",
        column="msemr_name2",
        start="msemr_name2startdate",
        end="msemr_name2enddate",
    )
    _set_named(
        row,
        names,
        "temp",
        column="msemr_name3",
        start="msemr_name3namestartdate",
        end="msemr_name3nameenddate",
    )


def _set_named(
    row: Json, names: list[Json], use: str, *, column: str, start: str, end: str
) -> None:
    name = next((name for name in names if name.get("use") == use), {})
    prefix, given, suffix = (name.get(part, []) for part in ("prefix", "given", "suffix"))
    family = [name["family"]] if "family" in name else []
    row[column] = name.get("text") or " ".join([*prefix, *given, *family, *suffix]) or None
    row[f"{column}familyname"] = name.get("family")
    row[f"{column}givenname"] = " ".join(given) or None
    row[f"{column}prefix"] = " ".join(prefix) or None
    row[f"{column}suffix"] = " ".join(suffix) or None
    row[f"{column}use"] = NAME_USES[use] if name else None
    _set_period(row, name, start, end)


def _set_telecoms(row: Json, telecoms: list[Json]) -> None:
    ranked = sorted(
        telecoms, key=lambda telecom: rank if (rank := telecom.get("rank", 9)) < 4 else 9
    )
    current = [telecom for telecom in ranked if telecom.get("use") != "old"]

    def list_values(*systems: str, uses: tuple[str | None, ...] | None = None) -> list[str]:
        return [
            telecom["value"]
            for telecom in current
            if telecom.get("system") in systems
            and "value" in telecom
            and (uses is None or telecom.get("use") in uses)
        ]

    row["telephone1"] = next(iter(list_values("phone", uses=("work",))), None)
    row["telephone2"] = next(iter(list_values("phone", uses=("home",))), None)
    row["telephone3"] = next(iter(list_values("phone", uses=(None, "temp"))), None)
    row["mobilephone"] = next(iter(list_values("phone", "sms", uses=("mobile",))), None)
    row["fax"] = next(iter(list_values("fax")), None)
    row["pager"] = next(iter(list_values("pager")), None)
    mails = [*list_values("email"), None, None, None]
    row["emailaddress1"], row["emailaddress2"], row["emailaddress3"] = mails[:3]
    supported = [
        telecom for telecom in current if "value" in telecom and telecom.get("system") in SYSTEMS
    ]
    for place, telecom in enumerate([*supported, {}, {}, {}][:3], 1):
        column = f"msemr_telecom{place}"
        row[f"{column}system"] = SYSTEMS.get(telecom.get("system", ""))
        row[f"{column}use"] = USES.get(telecom.get("use", ""))
        row[f"{column}rank"] = telecom.get("rank")
        _set_period(row, telecom, f"{column}startdate", f"{column}enddate")


def _set_addresses(row: Json, addresses: list[Json]) -> None:
    def find_first(*uses: str | None) -> Json:
        found = (address for use in uses for address in addresses if address.get("use") == use)
        return next(found, {})

    for place, address in enumerate(
        (find_first("home", None, "work"), find_first("temp"), find_first("billing"))
    ):
        column, lines = f"address{place + 1}", address.get("line", [])
        has_parts = lines or "city" in address
        row[f"{column}_line1"] = next(iter(lines), None) if has_parts else address.get("text")
        row[f"{column}_line2"] = lines[1] if len(lines) > 1 else None
        row[f"{column}_line3"] = ", ".join(lines[2:]) or None
        row[f"{column}_city"] = address.get("city")
        row[f"{column}_county"] = address.get("district")
        row[f"{column}_stateorprovince"] = address.get("state")
        row[f"{column}_postalcode"] = address.get("postalCode")
        row[f"{column}_country"] = address.get("country")
        _set_period(row, address, f"msemr_{column}periodstartdate", f"msemr_{column}periodenddate")


def _set_languages(row: Json, communication: list[Json]) -> None:
    spoken = sorted(communication, key=lambda language: not language.get("preferred"))
    for place, language in enumerate([*spoken, {}, {}][:2], 1):
        row[f"msemr_communication{place}language"] = _make_concept(
            LANGUAGE, language.get("language")
        )
        row[f"msemr_communication{place}preferred"] = language.get("preferred")


def _set_contacts(row: Json, contacts: list[Json]) -> None:
    emergency = next((contact for contact in contacts if _is_for_emergency(contact)), {})
    other = next((contact for contact in contacts if not _is_for_emergency(contact)), {})
    for place, contact in ((1, emergency), (2, other)):
        role = next(iter(contact.get("relationship", [])), None)
        row[f"msemr_contact{place}relationship"] = _make_concept(CONTACT_ROLE, role)
        _set_period(row, contact, f"msemr_contact{place}startdate", f"msemr_contac{place}tenddate")


def _is_for_emergency(contact: Json) -> bool:
    roles = contact.get("relationship", [])
    return any(code.get("code") in ("C", "EP") for role in roles for code in role.get("coding", []))


def _set_references(row: Json, patient: Json) -> None:
    general = patient.get("generalPractitioner", [])
    practitioners = [item for item in general if "Practitioner/" in item.get("reference", "")]
    row["msemr_generalpractioner"] = _make_lookup(next(iter(practitioners or general), None))
    row["msemr_managingorganization"] = _make_lookup(patient.get("managingOrganization"))
    for place, item in enumerate([*patient.get("link", []), {}, {}][:2], 1):
        row[f"msemr_link{place}"] = _make_lookup(item.get("other"))
        row[f"msemr_link{place}type"] = _make_concept_of_code(LINK_TYPE, item.get("type"))


def _set_animal(row: Json, patient: Json) -> None:
    url = "http://hl7.org/fhir/StructureDefinition/patient-animal"
    extensions = [
        extension for extension in patient.get("extension", []) if extension.get("url") == url
    ]
    parts = {
        part["url"]: part for extension in extensions for part in extension.get("extension", [])
    }
    row["msemr_animal"] = True if extensions else None
    for column, name, kind in (
        ("species", "species", 935000011),
        ("breed", "breed", 935000009),
        ("genderstatus", "genderStatus", 935000010),
    ):
        value = parts.get(name, {}).get("valueCodeableConcept")
        row[f"msemr_animal{column}"] = _make_concept(kind, value)


def _map_marital_status(patient: Json) -> int | None:
    codings = patient.get("maritalStatus", {}).get("coding", [])
    first = sorted(codings, key=lambda coding: "v3" not in coding.get("system", ""))
    return MARITAL.get(first[0].get("code", "")) if first else None


def _find_record_number(identifiers: list[Json]) -> str | None:
    records = [
        identifier
        for identifier in identifiers
        if identifier.get("use") != "old"
        and any(code.get("code") == "MR" for code in identifier.get("type", {}).get("coding", []))
    ]
    records.sort(key=lambda identifier: identifier.get("use") != "usual")
    return records[0].get("value") if records else None


def _map_identifier(item: Json) -> Json:
    codings = item.get("type", {}).get("coding", [])
    codings = sorted(codings, key=lambda coding: "0203" not in coding.get("system", ""))
    row: Json = {
        "msemr_identifiersystem": item.get("system"),
        "msemr_value": item.get("value"),
        "msemr_type": TYPES.get(codings[0].get("code", "")) if codings else None,
        "msemr_use": IDENTIFIER_USES.get(item.get("use", "")),
        "msemr_identifiertype": 935000000,
        "msemr_assigner": _make_lookup(item.get("assigner")),
    }
    _set_period(row, item, "msemr_periodstart", "msemr_periodend")
    return row


def _map_link(item: Json) -> Json:
    other = item.get("other", {})
    return {
        "msemr_link": _make_lookup(other),
        "msemr_linktype": _make_concept_of_code(LINK_TYPE, item.get("type")),
        "msemr_name": other.get("display", item.get("type")),
    }


def _make_lookup(reference: Json | None) -> Lookup | None:
    return Lookup(reference["reference"]) if reference and "reference" in reference else None


def _make_concept_of_code(kind: int, code: str | None) -> Concept | None:
    return Concept(kind, code, code, None) if code else None


def _make_concept(kind: int, concept: Json | None) -> Concept | None:
    if not concept:
        return None
    coding: Any = next(iter(concept.get("coding", [])), {})
    code = coding.get("code", concept.get("text", ""))
    return Concept(kind, code, coding.get("display", code), concept.get("text"))
