"""What a file holds is found by its name, or by its first bytes, and never trusted."""

from __future__ import annotations

import io
import tracemalloc
import warnings
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.intake.open_file import MAX_MEMBERS, estimate_bytes, list_parts
from tests.builders import MARKER, patient
from tests.intake.mailing import as_gzip, as_json, as_zip

PATIENT = as_json(patient())
LINES = PATIENT + b"\n" + PATIENT
JSON, NDJSON = "application/fhir+json", "application/fhir+ndjson"
MAX = 100_000


def opened(name: str, body: bytes) -> list[tuple[str | None, str, bytes]]:
    return [(part.member, *part.read()) for part in list_parts(name, body, MAX)]


def refusal(name: str, body: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        opened(name, body)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "body", "media", "content"),
    [
        ("lab/a.json", PATIENT, JSON, PATIENT),
        ("lab/a.JSON", PATIENT, JSON, PATIENT),
        ("lab/a", PATIENT + b"\n", JSON, PATIENT + b"\n"),
        ("lab/a", b'\n {\n "resourceType": "Patient"\n}', JSON, None),
        ("lab/a.ndjson", PATIENT, NDJSON, PATIENT),
        ("lab/a.jsonl", LINES, NDJSON, LINES),
        ("lab/a", LINES, NDJSON, LINES),
        ("lab/a.json", LINES, NDJSON, LINES),
        ("lab/a", b'"text"\n"text"', JSON, None),
        ("lab/a.json.gz", as_gzip(PATIENT), JSON, PATIENT),
        ("lab/a.ndjson.gz", as_gzip(PATIENT), NDJSON, PATIENT),
        ("lab/a", as_gzip(LINES), NDJSON, LINES),
        ("lab/a", b"", JSON, b""),
    ],
)
def test_a_file_is_known_by_its_name_or_its_first_bytes(
    name: str, body: bytes, media: str, content: bytes | None
) -> None:
    assert opened(name, body) == [(None, media, body if content is None else content)]


def test_the_members_of_a_zip_are_parts_of_their_own_in_its_order() -> None:
    body = as_zip(
        ("b.json", PATIENT), ("__MACOSX/._b.json", b"\0"), ("day/", b""), ("day/a.ndjson", LINES)
    )
    expected = [("b.json", JSON, PATIENT), ("day/a.ndjson", NDJSON, LINES)]
    assert opened("lab/a.zip", body) == expected
    assert opened("lab/a", body) == expected


def test_a_name_of_json_has_nothing_decompressed() -> None:
    """What it takes in memory is counted by its name."""
    body = as_gzip(PATIENT)
    assert opened("lab/a.json", body) == [(None, JSON, body)]
    assert estimate_bytes("lab/a.json", 7, MAX) == 7
    assert estimate_bytes("lab/a", 7, MAX) == 7 + MAX


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([("../a.json", PATIENT)], "leads out"),
        ([("/a.json", PATIENT)], "leads out"),
        ([("a/../../b.json", PATIENT)], "leads out"),
        ([("C:a.json", PATIENT)], "leads out"),
        ([("a\\b.json", PATIENT)], "leads out"),
        ([("a\n.json", PATIENT)], "leads out"),
        ([("a" * 201, PATIENT)], "too long"),
        ([("a.json", PATIENT), ("a.zip", as_zip(("b.json", PATIENT)))], "member 2 is an archive"),
        ([("a.json.gz", as_gzip(PATIENT))], "member 1 is an archive"),
        ([], "no members"),
        ([(f"{n}.json", b"1" * MAX) for n in range(11)], "bytes together"),
        ([(f"{n}.json", b"{}") for n in range(MAX_MEMBERS + 1)], "more than 1000 members"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_of_a_zip_that_must_be_guessed_at_nothing_is_taken(
    members: list[tuple[str, bytes]], problem: str
) -> None:
    text = refusal("lab/a.zip", as_zip(*members))
    assert text.startswith("nothing of the zip is taken")
    assert problem in text


def test_a_zip_with_two_members_of_one_name_is_refused() -> None:
    with warnings.catch_warnings(action="ignore"):
        body = as_zip((f"{MARKER}.json", PATIENT), (f"{MARKER}.json", LINES))
    text = refusal("lab/a.zip", body)
    assert "member 2 has the name of another" in text
    assert MARKER not in text


@pytest.mark.parametrize("inner", [as_gzip(PATIENT), as_zip(("b.json", PATIENT))])
def test_an_archive_within_another_is_refused_whatever_it_is_called(inner: bytes) -> None:
    assert "holds an archive" in refusal("lab/a.zip", as_zip(("a.json", inner)))
    assert "holds an archive" in refusal("lab/a.gz", as_gzip(inner))


@pytest.mark.parametrize("pack", [as_gzip, lambda content: as_zip(("a.json", content))])
def test_a_bomb_takes_no_more_memory_than_a_delivery_may_have(pack) -> None:  # type: ignore[no-untyped-def]
    bomb = pack(b" " * 50_000_000)
    assert len(bomb) < MAX
    tracemalloc.start()
    assert " bytes" in refusal("lab/a", bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * MAX


def test_what_shrinks_as_no_text_does_is_refused() -> None:
    body = as_gzip(b" " * 1_500_000)
    with pytest.raises(Rejected) as caught:
        list_parts("lab/a.gz", body, 2_000_000)[0].read()
    assert "200 times" in str(caught.value)


def test_a_member_that_is_larger_than_it_says_is_damaged() -> None:
    """The size in the directory is anybody's text."""
    body = bytearray(as_zip(("a.json", PATIENT * 100)))
    at = body.rindex(b"PK\x01\x02") + 24  # the uncompressed size of the central directory
    body[at : at + 4] = (10).to_bytes(4, "little")
    assert "member 1 of the zip is damaged" in refusal("lab/a.zip", bytes(body))


@pytest.mark.parametrize("cut", [1, 10, 40, 100])
def test_what_is_cut_off_is_refused(cut: int) -> None:
    for name, body in (("a.gz", as_gzip(LINES)), ("a.zip", as_zip(("a.json", LINES)))):
        assert refusal(name, body[:-cut])


def test_an_encrypted_member_is_refused() -> None:
    body = bytearray(as_zip(("a.json", PATIENT)))
    body[body.rindex(b"PK\x01\x02") + 8] |= 1
    assert "member 1 is encrypted" in refusal("lab/a.zip", bytes(body))


def test_another_way_of_compressing_is_refused() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.json", PATIENT)
    assert "neither stored nor deflated" in refusal("lab/a.zip", made.getvalue())


@given(
    body=st.sampled_from([as_gzip(LINES), as_zip(("a.json", LINES), ("b/c", PATIENT * 50))]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
    length=st.integers(0, 10_000),
    name=st.sampled_from(["lab/a", "lab/a.zip", "lab/a.gz"]),
)
def test_whatever_is_wrong_with_a_file_it_is_refused_or_bounded(
    body: bytes, changes: list[tuple[int, int]], length: int, name: str
) -> None:
    damaged = bytearray(body)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        parts = opened(name, bytes(damaged[: length or None]))
    except Rejected:
        return
    assert all(len(content) <= MAX for _, _, content in parts)


@given(body=st.binary(max_size=200), name=st.text(max_size=20))
def test_any_bytes_are_refused_or_taken(body: bytes, name: str) -> None:
    try:
        parts = opened(name, body)
    except Rejected:
        return
    assert len(parts) >= 1
