"""The shipped maps of patients as they would be with every column written back that can be."""

from __future__ import annotations

from dataclasses import replace

from integration.mapping.load import load_shipped_maps
from integration.mapping.model import EntityMap
from integration.mapping.write_back.apply import explain_unwritable

MARITAL_STATUS = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"

# What is made where somebody fills a column, and there is no such element yet.
MAKE = {
    "name": "name.where(use = 'official')",
    "nickname": "name.where(use = 'nickname')",
    "official": "name.where(use = 'official')",
    "temporary": "name.where(use = 'temp')",
    "work_phone": "telecom.where(system = 'phone' and use = 'work')",
    "home_phone": "telecom.where(system = 'phone' and use = 'home')",
    "mobile": "telecom.where(system = 'phone' and use = 'mobile')",
    "other_phone": "telecom.where(system = 'phone')",
    "fax": "telecom.where(system = 'fax')",
    "pager": "telecom.where(system = 'pager')",
    "mails": "telecom.where(system = 'email')",
    "home": "address.where(use = 'home')",
    "current": "address.where(use = 'temp')",
    "billing": "address.where(use = 'billing')",
    "marital": f"maritalStatus.coding.where(system = '{MARITAL_STATUS}')",
}


def build_writable_map(set_: str, prefix: str | None = None) -> EntityMap:
    """The map of patients of a set. Its marital status is a coding, so that its code has a
    system."""
    shipped = load_shipped_maps(set_, prefix)["Patient"]
    marital = shipped.variables["marital"]
    assert marital.endswith(".code.first()")
    coding = marital.replace(".code.first()", ".where(code.exists()).first()")
    entity = replace(shipped, make=MAKE, variables={**shipped.variables, "marital": coding})
    candidates = (
        replace(
            item, writeback=True, path="%marital.code" if item.path == "%marital" else item.path
        )
        for item in entity.attributes
    )
    return replace(
        entity,
        attributes=tuple(
            replace(item, writeback=explain_unwritable(entity, item) is None) for item in candidates
        ),
    )
