"""The table of codeable concepts: one row for each type and code. Pure.

It has no column for the code system (reference: the Common Data Model's healthcare schema), so only
type and code tell two concepts apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from integration.core.model import Row
from integration.mapping.model import Concept


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptTable:
    """Names, as the healthcare solution has them."""

    table: str = "msemr_codeableconcept"
    entity_set: str = "msemr_codeableconcepts"
    key: str = "msemr_codeableconceptid"
    type: str = "msemr_type"
    code: str = "msemr_code"
    name: str = "msemr_name"

    def build_row(self, concept: Concept) -> Row:
        """Return the row of a concept, without its key."""
        return {
            self.type: concept.type,
            self.code: concept.code,
            self.name: concept.name,
            "msemr_text": concept.text,
        }


CONCEPT_TABLE = ConceptTable()
