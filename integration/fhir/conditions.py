"""Conditions: searches by which the FHIR server finds the resource of an entry. Pure.

Senders spell one condition in many ways. Here is its canonical form, by which conditions are
compared, and under which the resource is locked.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote

from integration.fhir.grammar import is_id, is_type

# (type, parameters in order)
Search = tuple[str, tuple[tuple[str, str], ...]]

# https://hl7.org/fhir/R4/search.html#Summary -- they say how to answer, not what to find
_NO_CRITERIA = re.compile(
    r"_(contained|containedType|count|elements|format|include|pretty|revinclude|score|sort|summary"
    r"|total)(:.*)?"
)

# The types of which `identifier` is no search parameter. A server ignores it there, and finds what
# the other parameters say: https://hl7.org/fhir/R4/searchparameter-registry.html
UNIDENTIFIED_TYPES = frozenset(
    """
    AdverseEvent AuditEvent Binary BiologicallyDerivedProduct CapabilityStatement CatalogEntry
    CompartmentDefinition GraphDefinition ImplementationGuide Linkage MedicationKnowledge
    MedicinalProductContraindication MedicinalProductIndication MedicinalProductIngredient
    MedicinalProductInteraction MedicinalProductManufactured MedicinalProductUndesirableEffect
    MessageHeader NamingSystem ObservationDefinition OperationDefinition OperationOutcome Parameters
    Provenance SearchParameter Subscription SubstanceNucleicAcid SubstancePolymer SubstanceProtein
    SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification
    TerminologyCapabilities VerificationResult
    """.split()
)

# https://hl7.org/fhir/R4/searchparameter-registry.html -- the frequent ones of type date. Without a
# prefix they mean `eq` (https://hl7.org/fhir/R4/search.html#prefix); a string may begin with it.
_DATES = frozenset(
    """
    _lastUpdated abatement-date asserted-date authored authored-on authoredon birthdate created date
    death-date effective identified issued occurrence onset-date period recorded-date
    """.split()
)
_EQ = re.compile(r"eq(?=\d{4})")

# https://hl7.org/fhir/R4/search.html#escaping -- a comma is "or", unless it is escaped.
_OR = re.compile(r"(?<!\\),")

# https://www.rfc-editor.org/rfc/rfc3986#section-3.5 -- what follows a # is no part of the query.
HAS_FRAGMENT = "a query must not hold #, which ends it for some servers: write %23"

# What may stand in a query as it is (https://www.rfc-editor.org/rfc/rfc3986#section-3.4), and the
# bar of a token, which the examples of FHIR leave as it is.
_PLAIN = "/:|,$@!*'();~?"


def list_parameters(query: str) -> list[tuple[str, str]]:
    """Return the parameters of a query, those without a value included."""
    # Bytes that are not UTF-8 survive, so that two of them are never taken for the same.
    return parse_qsl(query, keep_blank_values=True, errors="surrogateescape")


def has_criterion(query: str) -> bool:
    """Whether at least one parameter is a criterion, and each criterion has a name and value: a
    server ignores one without, and so takes whatever else the query finds.
    https://hl7.org/fhir/R4/search.html#errors
    """
    criteria = list_criteria(query)
    return bool(criteria) and all(name and value for name, value in criteria)


def list_criteria(query: str) -> list[tuple[str, str]]:
    """Return the parameters of a query that say what to find, decoded."""
    return [pair for pair in list_parameters(query) if not _NO_CRITERIA.fullmatch(pair[0])]


def parse_search(type_: str, query: str) -> Search:
    """Parse `Type?query`, so that two spellings of one search are equal."""
    return type_, tuple(sorted({_normalize(*pair) for pair in list_criteria(query)}))


def canonicalize_condition(condition: str) -> str:
    """Return the one spelling of a condition `Type?query`: a valid search with the same meaning.

    Percent-encoding, the order and repetition of parameters, parameters that are no criteria, the
    prefix `eq` of dates and the type as a modifier of a reference make no difference.
    """
    type_, _, query = condition.partition("?")
    _, parameters = parse_search(type_, query)
    pairs = (f"{_encode(name)}={_encode(value)}" for name, value in parameters)
    return f"{type_}?{'&'.join(pairs)}"


def _normalize(name: str, value: str) -> tuple[str, str]:
    values = sorted(set(_OR.split(value)))
    plain_name, _, modifier = name.partition(":")
    if is_type(modifier) and all(map(is_id, values)):
        name, values = plain_name, [f"{modifier}/{identifier}" for identifier in values]
    elif name.rpartition(".")[2] in _DATES:
        values = sorted({_EQ.sub("", text) if _EQ.match(text) else text for text in values})
    return name, ",".join(values)


def _encode(text: str) -> str:
    return quote(text, safe=_PLAIN, errors="surrogateescape")
