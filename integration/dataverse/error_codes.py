"""What an error of Dataverse means, by its code. Pure.

Microsoft's pages differ on the status of one and the same error: a duplicate that a rule has found
is 500 on one of them, 412 on another. The code is the same on both, so the code decides where it is
known, and the status where it is not.

https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors
https://learn.microsoft.com/troubleshoot/power-platform/dataverse/user-permissions/client-errors
"""

from __future__ import annotations

import re
from enum import Enum

from integration.core import decimal_json
from integration.core.model import Response


class Meaning(Enum):
    """What to do about an error."""

    CHANGED = "somebody has changed the row, or made it: look again"
    GONE = "there is no such row: look again"
    KEY_TAKEN = "another row has what an alternate key allows once"
    DUPLICATE = "a rule of the organisation takes another row for the same"
    NO_RIGHTS = "an operator must give this app its role"
    BUSY = "try again later"
    REFUSED = "the same request would be refused again"


_MEANINGS = {
    "0x80060882": Meaning.CHANGED,  # ConcurrencyVersionMismatch
    "0x80040237": Meaning.CHANGED,  # DuplicateRecord: a row has this primary key
    "0x80040217": Meaning.GONE,  # ObjectDoesNotExist
    "0x80060891": Meaning.GONE,  # RecordNotFoundByEntityKey
    "0x80060892": Meaning.KEY_TAKEN,  # DuplicateRecordEntityKey
    "0x80040333": Meaning.DUPLICATE,  # DuplicateRecordsFound
    "0x80040220": Meaning.NO_RIGHTS,  # PrivilegeDenied
    "0x80040299": Meaning.NO_RIGHTS,  # a check of a privilege failed
    "0x80048306": Meaning.NO_RIGHTS,  # the privilege is there, its access level is too low
    "0x80072560": Meaning.NO_RIGHTS,  # UserNotMemberOfOrg
    # https://learn.microsoft.com/power-apps/developer/data-platform/api-limits
    "0x80072321": Meaning.BUSY,
    "0x80072322": Meaning.BUSY,
    "0x80072326": Meaning.BUSY,
    "0x80044151": Meaning.BUSY,  # SqlErrorTimeout
    "0x80071151": Meaning.BUSY,  # SolutionConcurrencyFailure
}

_BY_STATUS = {
    401: Meaning.NO_RIGHTS,
    403: Meaning.NO_RIGHTS,
    404: Meaning.GONE,
    408: Meaning.BUSY,
    412: Meaning.CHANGED,
    429: Meaning.BUSY,
}

_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]{8}")
_DECIMAL = re.compile(r"-\d{10}")  # some services write the same number so


def read_meaning(response: Response) -> Meaning:
    """Return what an error response, or part of a batch, means."""
    known = _MEANINGS.get(read_error_code(response))
    if known is not None:
        return known
    fallback = Meaning.BUSY if response.status >= 500 else Meaning.REFUSED
    return _BY_STATUS.get(response.status, fallback)


def read_error_code(response: Response) -> str:
    """Return Dataverse's error code, such as 0x80040333; "" when there is none. Its message may
    quote a value."""
    try:
        code = str(decimal_json.decode(response.body).get("error", {}).get("code", ""))
    except (decimal_json.Malformed, AttributeError):
        return ""
    if _DECIMAL.fullmatch(code):
        return f"0x{int(code) & 0xFFFFFFFF:08x}"
    # The digits are written in either case.
    return code.lower() if _HEXADECIMAL.fullmatch(code) else code[:20]


def describe_failure(response: Response) -> str:
    """Return the status and the error code, and in words what is not plain from them."""
    text = f"answered {response.status} {read_error_code(response)}".strip()
    meaning = read_meaning(response)
    return f"{text} ({meaning.value}{_EXPLAINED[meaning]})" if meaning in _EXPLAINED else text


# What is not plain from a code, and where to look for what Dataverse does not say: which rule, and
# which row. https://learn.microsoft.com/power-platform/admin/set-up-duplicate-detection-rules-keep-data-clean
_EXPLAINED = {
    Meaning.KEY_TAKEN: "",
    Meaning.DUPLICATE: (
        ". The rules are in the Power Platform admin center: Settings, Data management, Duplicate "
        "detection rules. Search Dataverse for a row with the same values in the columns of one"
    ),
}
