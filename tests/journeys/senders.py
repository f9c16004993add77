"""The senders of the journeys: the holders of a function key, two hospitals, and a webhook."""

from __future__ import annotations

# {base}: the FHIR server of a sender.
SENDERS = """
[default.proof]
scheme = "function-key"
[default.rights]
methods = ["POST", "PUT", "PATCH", "DELETE"]
reads = true
conditional_deletes = true
[default.policy]
base = "{base}"

[north.proof]
scheme = "bearer"
secrets = ["NORTH_TOKEN"]
[north.rights]
methods = ["POST", "PUT", "DELETE"]
identifier_systems = ["urn:north:mrn"]
id_prefixes = ["north-"]

[south.proof]
scheme = "bearer"
secrets = ["SOUTH_TOKEN"]
[south.rights]
methods = ["POST", "PUT", "DELETE"]
identifier_systems = ["urn:south:mrn"]
id_prefixes = ["south-"]
[south.policy]
wait = 60

[feed.proof]
scheme = "token-header"
header = "verification-token"
secrets = ["FEED_TOKEN"]
[feed.policy]
dialect = "redox"
accepted_status = 200
refused_deliveries = "hold"
refused_entries = "hold"

[medplum.proof]
scheme = "hmac"
header = "X-Signature"
secrets = ["MEDPLUM_SECRET"]
[medplum.rights]
methods = ["POST", "PUT", "DELETE"]
[medplum.policy]
dialect = "medplum"
base = "{base}"
idempotency_pointers = ["/resourceType", "/id", "/meta/versionId"]
"""

SECRETS = {
    "NORTH_TOKEN": "made-up-token-of-the-north",
    "SOUTH_TOKEN": "made-up-token-of-the-south",
    "FEED_TOKEN": "made-up-token-of-a-feed",
    "MEDPLUM_SECRET": "made-up-secret-of-a-server",
}
