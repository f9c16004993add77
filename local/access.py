"""Request headers for the FHIR server, with a token if it needs one."""

from __future__ import annotations

from local.host.settings import CannotStart


def build_fhir_headers(scope: str | None) -> dict[str, str]:
    """Return request headers for the FHIR server. With a scope, they carry a token.

    Raises CannotStart if no token can be had.
    """
    if scope is None:
        return {"content-type": "application/fhir+json"}
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import DefaultAzureCredential

    try:
        token = DefaultAzureCredential().get_token(scope).token
    except ClientAuthenticationError:
        raise CannotStart(f"no token for {scope}: sign in, or set FHIR_SCOPE=none") from None
    return {"content-type": "application/fhir+json", "authorization": f"Bearer {token}"}
