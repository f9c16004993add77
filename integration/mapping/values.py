"""One FHIR value into one column: what fits, what is made to fit, what is left out. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping.model import AttributeMap, Concept, Kind, LongText, Lookup, PartialDate

Note = Callable[[str], None]

TEXTS = frozenset({"String", "Memo"})
WHOLE = frozenset({"Integer", "BigInt"})
NUMBERS = WHOLE | {"Decimal", "Double", "Money"}
CHOICES = frozenset({"Picklist", "State", "Status", "Boolean"})
LOOKUPS = frozenset({"Lookup", "Customer", "Owner"})

# What FHIR allows in no string (https://hl7.org/fhir/R4/datatypes.html#string), nor XML at all.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

# https://hl7.org/fhir/R4/datatypes.html#dateTime
_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(T.*)?)?)?", re.ASCII)
_INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?", re.ASCII
)

# The first day that Dataverse keeps, DateTimeAttributeMetadata.MinSupportedValue:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/datetimeattributemetadata
_FIRST_DAY = date(1753, 1, 1)

_MOST_DIGITS = 100

# https://hl7.org/fhir/R4/references.html#literal
_RELATIVE = re.compile(r"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")


def fitted(
    attribute: AttributeMap, value: Any, column: Column, note: Note, base: str | None
) -> Any:
    """`value` as `column` keeps it. Raises Unmappable for what the column cannot hold."""
    match attribute.kind:
        case Kind.LOOKUP:
            return link(value, base)
        case Kind.CONCEPT:
            return _concept(attribute, value, note)
    if isinstance(value, dict | list):
        raise Unmappable("the path ends at no primitive")
    match attribute.kind:
        case Kind.DATE:
            return _on(_day(value, attribute.partial, note), column)
        case Kind.DATETIME:
            return utc(_moment(value, attribute.partial, note))
        case Kind.CHOICE:
            return _option(attribute, value, column)
        case _:
            return _copied(attribute, value, column, note)


def _copied(attribute: AttributeMap, value: Any, column: Column, note: Note) -> Any:
    if column.type in TEXTS or column.type == "Uniqueidentifier":
        keep = attribute.too_long is LongText.CUT
        return text(value, column.max_length, keep, note)
    if column.type == "Boolean":
        return _truth(value)
    if column.type in NUMBERS:
        return _number(value, column, note)
    if column.type in CHOICES and type(value) is int:
        return _known_option(value, column)
    raise Unmappable(f"a {column.type} column takes no copy")


# -- text ----------------------------------------------------------------------------------------


def text(value: Any, longest: int | None, keep: bool, note: Note) -> str | None:
    """Without blanks around it; None where nothing is left. `keep`: cut rather than left out."""
    said = _lexical(value)
    legal = _FORBIDDEN.sub("", said)
    if legal != said:
        note("characters that no text may hold, left out")
    legal = legal.strip()
    # Dataverse counts as SQL Server does, in UTF-16: https://learn.microsoft.com/sql/t-sql/data-types/nchar-and-nvarchar-transact-sql
    if longest is None or len(legal) * 2 <= longest:
        return legal or None
    units = legal.encode("utf-16-le")
    if len(units) <= longest * 2:
        return legal
    note(f"longer than {longest}, {'cut' if keep else 'left out'}")
    # Half of a character at the end goes, too.
    return units[: longest * 2].decode("utf-16-le", "ignore").rstrip() if keep else None


def _lexical(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return format(_bounded(Decimal(value)), "f")
    return str(value)


def _bounded(number: Decimal) -> Decimal:
    """1E+999999999 is a short text in JSON, and a gigabyte of digits."""
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        raise Unmappable("not a number that a column can hold")
    return number


# -- truths, numbers, choices --------------------------------------------------------------------


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise Unmappable("neither true nor false")


def _number(value: Any, column: Column, note: Note) -> int | Decimal:
    if isinstance(value, bool):
        raise Unmappable("not a number")
    places = 0 if column.type in WHOLE else column.precision
    try:
        number = _bounded(Decimal(value) if isinstance(value, int) else Decimal(str(value)))
        rounded = number if places is None else _rounded(number, places)
    except InvalidOperation:
        raise Unmappable("not a number") from None
    if (column.minimum is not None and rounded < column.minimum) or (
        column.maximum is not None and rounded > column.maximum
    ):
        raise Unmappable(f"outside of {column.minimum} to {column.maximum}")
    if rounded != number:
        note(f"rounded to {places} decimal places")
    return int(rounded) if column.type in WHOLE else rounded


def _rounded(number: Decimal, places: int) -> Decimal:
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and -exponent <= places:
        return number
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)


def _option(attribute: AttributeMap, value: Any, column: Column) -> int | bool:
    for option in attribute.choices.get(_lexical(value), ()):
        if column.options is None or option in column.options:
            return bool(option) if column.type == "Boolean" else option
    raise Unmappable("the code has no option in this column")


def _known_option(value: int, column: Column) -> int:
    if column.options is not None and value not in column.options:
        raise Unmappable("no option of this column")
    return value


# -- days and moments ----------------------------------------------------------------------------


def instant(value: Any) -> datetime:
    """Raises Unmappable for what is no whole instant."""
    if not _INSTANT.fullmatch(str(value)):
        raise Unmappable("not an instant")
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise Unmappable("not an instant") from None
    if moment.tzinfo is None:
        raise Unmappable("an instant without a time zone")
    return moment


def utc(moment: datetime) -> str:
    """Dataverse keeps whole seconds."""
    try:
        there = moment.astimezone(UTC)
    except OverflowError:
        raise Unmappable("an instant outside the calendar") from None
    if there.date() < _FIRST_DAY:
        raise Unmappable(f"before {_FIRST_DAY.year}")
    return there.strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(value: Any, partial: PartialDate, note: Note) -> date:
    """A date or dateTime as the day that is written in it, whatever its time zone."""
    match = _DATE.fullmatch(str(value))
    if match is None:
        raise Unmappable("not a date")
    year, month, day = match[1], match[2], match[3]
    if day is None and partial is PartialDate.OMIT:
        raise Unmappable("not a whole date")
    try:
        if day is not None:
            found = date(int(year), int(month), int(day))
        else:
            found = _bound(int(year), int(month) if month else None, partial)
    except (ValueError, OverflowError):
        raise Unmappable("no date of the calendar") from None
    if found < _FIRST_DAY:
        raise Unmappable(f"before {_FIRST_DAY.year}")
    if day is None:
        note(f"not a whole date, its {partial} day taken")
    return found


def _bound(year: int, month: int | None, partial: PartialDate) -> date:
    """The first or the last day of a year or a month."""
    if partial is PartialDate.FIRST:
        return date(year, month or 1, 1)
    if month in (None, 12):
        return date(year, 12, 31)
    return date(year, month + 1, 1) - timedelta(days=1) if month else date(year, 12, 31)


def _on(day: date, column: Column) -> str:
    """https://learn.microsoft.com/power-apps/developer/data-platform/behavior-format-date-time-attribute"""
    if column.behavior == "UserLocal":
        # Midnight would be the day before in half of the world.
        return f"{day.isoformat()}T12:00:00Z"
    if column.behavior == "TimeZoneIndependent":
        return f"{day.isoformat()}T00:00:00Z"
    return day.isoformat()


def _moment(value: Any, partial: PartialDate, note: Note) -> datetime:
    """An instant; of a day, a month or a year its first or its last second, by rule."""
    if partial is PartialDate.OMIT or "T" in str(value):
        return instant(value)
    day = _day(value, partial, note)
    first = datetime(day.year, day.month, day.day, tzinfo=UTC)
    note(f"not an instant, its {partial} second in UTC taken")
    return first if partial is PartialDate.FIRST else first + timedelta(days=1, seconds=-1)


# -- other rows ----------------------------------------------------------------------------------


def link(value: Any, base: str | None) -> Lookup:
    """A Reference, or its `reference`. Only what the FHIR server behind the rows holds has a row:
    https://hl7.org/fhir/R4/references.html#Reference"""
    literal = value.get("reference") if isinstance(value, Mapping) else value
    if literal is None:
        raise Unmappable("a reference without an address")
    if not isinstance(literal, str):
        raise Unmappable("the path ends at no reference")
    if literal.startswith("#"):
        raise Unmappable("a contained resource has no row")
    if base and literal.startswith(f"{base.rstrip('/')}/"):
        literal = literal[len(base.rstrip("/")) + 1 :]
    found = _RELATIVE.fullmatch(literal)
    if found is None:
        raise Unmappable("a reference to no resource of this FHIR server")
    return Lookup(found[1])


def _concept(attribute: AttributeMap, value: Any, note: Note) -> Concept:
    """Of a CodeableConcept, the first coding with a code; or a Coding; or a code alone.

    There is no column for a code system: type and code are the key.
    """
    said = value.get("text") if isinstance(value, Mapping) else None
    coding = value
    if isinstance(value, Mapping) and "coding" in value:
        codings = value["coding"] if isinstance(value["coding"], list) else []
        coded = [one for one in codings if isinstance(one, Mapping) and one.get("code")]
        coding = coded[0] if coded else {}
    display = coding.get("display") if isinstance(coding, Mapping) else None
    code = coding.get("code") if isinstance(coding, Mapping) else coding
    if any(isinstance(each, dict | list) for each in (code, display, said)):
        raise Unmappable("the path ends at no concept")
    # Lengths of msemr_code, msemr_name and msemr_text.
    code = text(code, None, False, note) if code is not None else None
    if code is None:
        raise Unmappable("a concept without a code")
    if len(code) > 100:
        raise Unmappable("a code longer than 100")
    name = next((each for each in (display, said) if each is not None), code)
    shown = text(name, 100, True, note) or code
    remark = text(said, 2000, True, note) if said is not None else None
    return Concept(attribute.concept or 0, code, shown, remark)
