"""Converts one FHIR value for one column, by the rules of its attribute map. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping.model import (
    AttributeMap,
    Concept,
    Kind,
    LongText,
    Lookup,
    PartialDate,
)

# Records why a value was changed or left out.
Note = Callable[[str], None]

# Dataverse's AttributeTypes by what they hold:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/attributetypecode
TEXT_TYPES = frozenset({"String", "Memo"})
INTEGER_TYPES = frozenset({"Integer", "BigInt"})
NUMBER_TYPES = INTEGER_TYPES | {"Decimal", "Double", "Money"}
CHOICE_TYPES = frozenset({"Picklist", "State", "Status", "Boolean"})
LOOKUP_TYPES = frozenset({"Lookup", "Customer", "Owner"})

# What FHIR allows in no string (https://hl7.org/fhir/R4/datatypes.html#string), nor XML at all.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

# Breaks of lines and paragraphs, tabs, and the blanks around them.
_BREAKS = re.compile(r"\s*[\t\n\x0b\x0c\r\x85\u2028\u2029]\s*")

# https://hl7.org/fhir/R4/datatypes.html#dateTime
_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(T.*)?)?)?", re.ASCII)
INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?", re.ASCII
)

# As Dataverse returns the values of its DateTime columns.
_ROW_DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2}))?")

# The first day that Dataverse keeps, DateTimeAttributeMetadata.MinSupportedValue:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/datetimeattributemetadata
FIRST_DAY = date(1753, 1, 1)

_MAX_DIGITS = 100

# https://hl7.org/fhir/R4/references.html#literal
_RELATIVE = re.compile(r"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")

# The format of a text column that begins as the element in FHIR does, with its blanks.
KEPT_START = "KeptStart"

# Lengths of msemr_code, msemr_name and msemr_text.
MAX_CODE, MAX_CONCEPT_NAME, MAX_CONCEPT_TEXT = 100, 100, 2000


def convert_value(
    attribute: AttributeMap, value: Any, column: Column, note: Note, base: str | None
) -> Any:
    """Return `value` as `column` keeps it: a JSON scalar, a Lookup, a Concept, or None.

    `base` is the address of the FHIR server. Raises Unmappable for what the column cannot hold.
    """
    match attribute.kind:
        case Kind.LOOKUP:
            return parse_reference(value, base)
        case Kind.CONCEPT:
            return _convert_concept(attribute, value, note)
    if isinstance(value, dict | list):
        raise Unmappable("the path does not end at a primitive value")
    match attribute.kind:
        case Kind.DATE:
            return format_day(_parse_day(value, attribute.partial, note), column)
        case Kind.DATETIME:
            return format_utc(_parse_datetime(value, attribute.partial, note))
        case Kind.CHOICE:
            return _find_option(attribute, value, column)
        case _:
            return _copy_value(attribute, value, column, note)


def _copy_value(attribute: AttributeMap, value: Any, column: Column, note: Note) -> Any:
    if column.type in TEXT_TYPES or column.type == "Uniqueidentifier":
        cut = attribute.too_long is LongText.CUT
        keeps_start = column.format == KEPT_START
        keeps_breaks = keeps_start or column.format == "TextArea"
        if column.type == "String" and not keeps_breaks and type(value) is str:
            # A column of one line does not show what comes after a break.
            value = _BREAKS.sub(" ", value)
        return clean_text(value, column.max_length, cut=cut, note=note, keeps_start=keeps_start)
    if column.type == "Boolean":
        return _parse_boolean(value)
    if column.type in NUMBER_TYPES:
        return _convert_number(value, column, note)
    if column.type in CHOICE_TYPES and type(value) is int:
        return _check_option(value, column)
    raise Unmappable(f"a {column.type} column cannot hold a copied value")


# -- text ----------------------------------------------------------------------------------------


def clean_text(
    value: Any, max_length: int | None, *, cut: bool, note: Note, keeps_start: bool = False
) -> str | None:
    """Return the text without forbidden characters and without blanks around it, or only behind it;
    None where nothing is left. Text of more than `max_length` UTF-16 units is cut, or else left
    out."""
    lexical = _format_lexical(value)
    legal = _FORBIDDEN.sub("", lexical)
    if legal != lexical:
        note("forbidden characters were left out")
    legal = legal.rstrip() if keeps_start else legal.strip()
    # Dataverse counts as SQL Server does, in UTF-16: https://learn.microsoft.com/sql/t-sql/data-types/nchar-and-nvarchar-transact-sql
    if max_length is None or len(legal) * 2 <= max_length:
        return legal or None
    units = legal.encode("utf-16-le")
    if len(units) <= max_length * 2:
        return legal
    note(f"the text is longer than {max_length} characters and was {'cut' if cut else 'left out'}")
    # Half of a character at the end goes, too.
    return units[: max_length * 2].decode("utf-16-le", "ignore").rstrip() if cut else None


def _format_lexical(value: Any) -> str:
    """Return a primitive as FHIR writes it in XML."""
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return format(_check_digits(Decimal(value)), "f")
    return str(value)


def _check_digits(number: Decimal) -> Decimal:
    """1E+999999999 is a short text in JSON, and a gigabyte of digits."""
    if not number.is_finite() or abs(number.adjusted()) > _MAX_DIGITS:
        raise Unmappable("the value is not a number that a column can hold")
    return number


# -- booleans, numbers, choices ------------------------------------------------------------------


def _parse_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise Unmappable("the value is neither true nor false")


def _convert_number(value: Any, column: Column, note: Note) -> int | Decimal:
    if isinstance(value, bool):
        raise Unmappable("the value is not a number")
    places = 0 if column.type in INTEGER_TYPES else column.precision
    try:
        number = _check_digits(Decimal(value) if isinstance(value, int) else Decimal(str(value)))
        rounded = number if places is None else _round_number(number, places)
    except InvalidOperation:
        raise Unmappable("the value is not a number") from None
    if (column.minimum is not None and rounded < column.minimum) or (
        column.maximum is not None and rounded > column.maximum
    ):
        raise Unmappable(f"the number is not from {column.minimum} to {column.maximum}")
    if rounded != number:
        note(f"the number was rounded to {places} decimal places")
    return int(rounded) if column.type in INTEGER_TYPES else rounded


def _round_number(number: Decimal, places: int) -> Decimal:
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and -exponent <= places:
        return number
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)


def _find_option(attribute: AttributeMap, value: Any, column: Column) -> int | bool:
    """Return the first option of the code that the column has."""
    for option in attribute.choices.get(_format_lexical(value), ()):
        if column.options is None or option in column.options:
            return bool(option) if column.type == "Boolean" else option
    raise Unmappable("the code has no option in this column")


def _check_option(value: int, column: Column) -> int:
    if column.options is not None and value not in column.options:
        raise Unmappable("the value is not an option of this column")
    return value


# -- dates and instants --------------------------------------------------------------------------


def parse_instant(value: Any) -> datetime:
    """Return an aware datetime. Raises Unmappable for what has no day, time or time zone."""
    if not INSTANT.fullmatch(str(value)):
        raise Unmappable("the value is not an instant")
    try:
        instant = datetime.fromisoformat(str(value))
    except ValueError:
        raise Unmappable("the value is not an instant") from None
    if instant.tzinfo is None:
        raise Unmappable("the instant has no time zone")
    return instant


def format_utc(instant: datetime) -> str:
    """Return an instant in UTC, in the whole seconds that Dataverse keeps. Raises Unmappable for
    what Dataverse cannot hold."""
    try:
        in_utc = instant.astimezone(UTC)
    except OverflowError:
        raise Unmappable("the instant is outside the calendar") from None
    if in_utc.date() < FIRST_DAY:
        raise Unmappable(f"the date is before {FIRST_DAY.year}")
    return in_utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_datetime_text(value: str) -> bool:
    """Whether Dataverse may have returned this text as the value of a DateTime column."""
    return _ROW_DATETIME.fullmatch(value) is not None


def is_same_datetime(first: str, second: str) -> bool:
    """Whether two such texts are the same instant, or the same text."""
    try:
        return parse_instant(first) == parse_instant(second)
    except Unmappable:
        return first == second


def _parse_day(value: Any, partial: PartialDate, note: Note) -> date:
    """Return the day of a date or dateTime as it is written, whatever its time zone. A month or a
    year has a day by the map's rule."""
    match = _DATE.fullmatch(str(value))
    if match is None:
        raise Unmappable("the value is not a date")
    year, month, day = match[1], match[2], match[3]
    if day is None and partial is PartialDate.OMIT:
        raise Unmappable("the date is incomplete")
    try:
        if day is not None:
            found = date(int(year), int(month), int(day))
        else:
            found = _complete_date(int(year), int(month) if month else None, partial)
    except (ValueError, OverflowError):
        raise Unmappable("the date does not exist") from None
    if found < FIRST_DAY:
        raise Unmappable(f"the date is before {FIRST_DAY.year}")
    if day is None:
        note(f"the date is incomplete; its {partial} day was taken")
    return found


def _complete_date(year: int, month: int | None, partial: PartialDate) -> date:
    """Return the first or the last day of a year or a month."""
    if partial is PartialDate.FIRST:
        return date(year, month or 1, 1)
    if month in (None, 12):
        return date(year, 12, 31)
    return date(year, month + 1, 1) - timedelta(days=1) if month else date(year, 12, 31)


def format_day(day: date, column: Column) -> str:
    """Return a day as a column keeps it: https://learn.microsoft.com/power-apps/developer/data-platform/behavior-format-date-time-attribute"""
    if column.behavior == "UserLocal":
        # The same day for readers from UTC-10 to UTC+13: midnight would be the day before in half
        # of the world, and noon the day after in New Zealand.
        return f"{day.isoformat()}T10:30:00Z"
    if column.behavior == "TimeZoneIndependent":
        return f"{day.isoformat()}T00:00:00Z"
    return day.isoformat()


def _parse_datetime(value: Any, partial: PartialDate, note: Note) -> datetime:
    """Return an instant; of a day, a month or a year its first or its last second, by the map's
    rule."""
    if partial is PartialDate.OMIT or "T" in str(value):
        return parse_instant(value)
    day = _parse_day(value, partial, note)
    first = datetime(day.year, day.month, day.day, tzinfo=UTC)
    note(f"the date has no time; its {partial} second in UTC was taken")
    return first if partial is PartialDate.FIRST else first + timedelta(days=1, seconds=-1)


# -- references and concepts ---------------------------------------------------------------------


def parse_reference(value: Any, base: str | None) -> Lookup:
    """Return the lookup of a Reference, or of its `reference`. Raises Unmappable for what is not on
    the FHIR server, since only that has rows: https://hl7.org/fhir/R4/references.html#Reference"""
    literal = value.get("reference") if isinstance(value, Mapping) else value
    if literal is None:
        raise Unmappable("the reference has no address")
    if not isinstance(literal, str):
        raise Unmappable("the path does not end at a reference")
    if literal.startswith("#"):
        raise Unmappable("a contained resource has no row")
    if base and literal.startswith(f"{base.rstrip('/')}/"):
        literal = literal[len(base.rstrip("/")) + 1 :]
    match = _RELATIVE.fullmatch(literal)
    if match is None:
        raise Unmappable("the reference is not to a resource on this FHIR server")
    return Lookup(match[1])


def _convert_concept(attribute: AttributeMap, value: Any, note: Note) -> Concept:
    """Return the concept of a Coding, a code, or a CodeableConcept's first coding with a code.

    The table of concepts has no column for a code system: type and code are the key.
    """
    text = value.get("text") if isinstance(value, Mapping) else None
    coding = value
    if isinstance(value, Mapping) and "coding" in value:
        codings = value["coding"] if isinstance(value["coding"], list) else []
        coded = [item for item in codings if isinstance(item, Mapping) and item.get("code")]
        coding = coded[0] if coded else {}
    display = coding.get("display") if isinstance(coding, Mapping) else None
    code = coding.get("code") if isinstance(coding, Mapping) else coding
    if any(isinstance(part, dict | list) for part in (code, display, text)):
        raise Unmappable("the path does not end at a concept or code")
    code = clean_text(code, None, cut=False, note=note) if code is not None else None
    if code is None:
        raise Unmappable("the concept has no code")
    if len(code) > MAX_CODE:
        raise Unmappable(f"the code is longer than {MAX_CODE} characters")
    label = next((part for part in (display, text) if part is not None), code)
    name = clean_text(label, MAX_CONCEPT_NAME, cut=True, note=note) or code
    if text is not None:
        text = clean_text(text, MAX_CONCEPT_TEXT, cut=True, note=note)
    return Concept(attribute.concept or 0, code, name, text)
