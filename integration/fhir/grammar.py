"""What FHIR R4 allows as a resource type, an id and a reference. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

# https://hl7.org/fhir/R4/datatypes.html#id -- the FHIR service refuses anything else in a path.
# A path would swallow `.` and `..` (https://www.rfc-editor.org/rfc/rfc3986#section-5.2.4).
_ID = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9\-.]{1,64}")

# https://hl7.org/fhir/R4/references.html#regex
_LITERAL = re.compile(
    r"(?P<root>https?://[^?#]*/)?(?P<type>[A-Za-z]+)/(?P<id>[A-Za-z0-9\-.]{1,64})"
    r"(?P<version>/_history/[A-Za-z0-9\-.]{1,64})?"
)

# https://hl7.org/fhir/R4/resourcelist.html
RESOURCE_TYPES = frozenset(
    """
    Account ActivityDefinition AdverseEvent AllergyIntolerance Appointment AppointmentResponse
    AuditEvent Basic Binary BiologicallyDerivedProduct BodyStructure Bundle CapabilityStatement
    CarePlan CareTeam CatalogEntry ChargeItem ChargeItemDefinition Claim ClaimResponse
    ClinicalImpression CodeSystem Communication CommunicationRequest CompartmentDefinition
    Composition ConceptMap Condition Consent Contract Coverage CoverageEligibilityRequest
    CoverageEligibilityResponse DetectedIssue Device DeviceDefinition DeviceMetric DeviceRequest
    DeviceUseStatement DiagnosticReport DocumentManifest DocumentReference EffectEvidenceSynthesis
    Encounter Endpoint EnrollmentRequest EnrollmentResponse EpisodeOfCare EventDefinition Evidence
    EvidenceVariable ExampleScenario ExplanationOfBenefit FamilyMemberHistory Flag Goal
    GraphDefinition Group GuidanceResponse HealthcareService ImagingStudy Immunization
    ImmunizationEvaluation ImmunizationRecommendation ImplementationGuide InsurancePlan Invoice
    Library Linkage List Location Measure MeasureReport Media Medication MedicationAdministration
    MedicationDispense MedicationKnowledge MedicationRequest MedicationStatement MedicinalProduct
    MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication
    MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
    MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect
    MessageDefinition MessageHeader MolecularSequence NamingSystem NutritionOrder Observation
    ObservationDefinition OperationDefinition OperationOutcome Organization
    OrganizationAffiliation Parameters Patient PaymentNotice PaymentReconciliation Person
    PlanDefinition Practitioner PractitionerRole Procedure Provenance Questionnaire
    QuestionnaireResponse RelatedPerson RequestGroup ResearchDefinition
    ResearchElementDefinition ResearchStudy ResearchSubject RiskAssessment RiskEvidenceSynthesis
    Schedule SearchParameter ServiceRequest Slot Specimen SpecimenDefinition StructureDefinition
    StructureMap Subscription Substance SubstanceNucleicAcid SubstancePolymer SubstanceProtein
    SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification SupplyDelivery
    SupplyRequest Task TerminologyCapabilities TestReport TestScript ValueSet VerificationResult
    VisionPrescription
    """.split()
)


def is_id(value: object) -> bool:
    """Whether `value` may stand as an id in a path."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_type(value: object) -> bool:
    """Whether `value` names an R4 resource type."""
    return isinstance(value, str) and value in RESOURCE_TYPES


def fold_url(url: str) -> str:
    """Return a url for comparison. The case of a UUID does not count:
    https://www.rfc-editor.org/rfc/rfc4122#section-3"""
    return url.lower() if url[:9].lower() == "urn:uuid:" else url


class LiteralReference(NamedTuple):
    """A reference to a resource by its id: https://hl7.org/fhir/R4/references.html#literal"""

    root: str  # the server's base address with a slash at its end, or empty
    identity: str  # Type/id
    version: str  # /_history/version, or empty


def parse_literal(reference: str) -> LiteralReference | None:
    """Parse a literal reference; None for any other text."""
    match = _LITERAL.fullmatch(reference)
    if match is None or match["type"] not in RESOURCE_TYPES:
        return None
    identity = f"{match['type']}/{match['id']}"
    return LiteralReference(match["root"] or "", identity, match["version"] or "")
