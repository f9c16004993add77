"""How demo, journeys and bench reach a FHIR server of one's own."""

from __future__ import annotations

from local.host.settings import CannotStart


def build_fhir_headers(scope: str | None) -> dict[str, str]:
    """For the FHIR server: one's own may ask for a token, the local one does not."""
    if scope is None:
        return {"content-type": "application/fhir+json"}
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import DefaultAzureCredential

    try:
        token = DefaultAzureCredential().get_token(scope).token
    except ClientAuthenticationError:
        raise CannotStart(f"no token for {scope}: sign in, or set FHIR_SCOPE=none") from None
    return {"content-type": "application/fhir+json", "authorization": f"Bearer {token}"}
