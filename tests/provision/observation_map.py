"""The map of a virtual table."""

from __future__ import annotations

OBSERVATION = """
resource = "Observation"

[row]
table = "msemr_observation"
entity_set = "msemr_observations"
key = "msemr_observationid"
id_column = "msemr_azurefhirid"
version_column = "msemr_azurefhirversion"
updated_column = "msemr_azurefhirlastupdatedon"
routes = ["virtual"]
name_column = "msemr_description"

[[attribute]]
column = "msemr_description"
path = "code.text"
max_length = 200
label = "Name"

[[attribute]]
column = "msemr_status"
path = "status"
kind = "choice"
choices = { final = 935000000, entered-in-error = 935000001, amended = [935000002, 935000000] }

[[attribute]]
column = "msemr_comment"
path = "note.text.first()"
type = "memo"
max_length = 4000

[[attribute]]
column = "msemr_value"
path = "value.ofType(Quantity).value"
type = "decimal"

[[attribute]]
column = "msemr_issued"
path = "issued"
kind = "datetime"

[[attribute]]
column = "msemr_day"
path = "effective.ofType(dateTime)"
kind = "date"

[[attribute]]
column = "msemr_subjectpatient"
path = "subject"
kind = "lookup"
target = "Patient"

[[attribute]]
column = "msemr_encounter"
path = "encounter"
kind = "lookup"
target = "Encounter"

[[attribute]]
column = "msemr_kind"
kind = "default"
default = 1
"""
