"""Ids as pages show them."""

from __future__ import annotations

import re

import pytest

from integration.pages.view import format_id

DELIVERY = "01a22c80-7e73-7a4d-971e-5d2691a25473"


@pytest.mark.parametrize("name", [DELIVERY, f"Patient/{DELIVERY}", "Patient/p1", "-", "p1"])
def test_all_of_an_id_stays_in_the_page(name: str) -> None:
    html = str(format_id(name))
    assert re.sub("<[^>]*>", "", html) == name
    assert f'title="{name}"' in html


def test_of_a_long_id_the_type_and_the_end_are_shown() -> None:
    html = str(format_id(f"Patient/{DELIVERY}"))
    seen = re.sub('<span class="cut">.*?</span>', "…", html)
    assert re.sub("<[^>]*>", "", seen) == "Patient/…91a25473"


def test_a_short_id_is_shown_whole() -> None:
    assert "cut" not in format_id("Patient/hospital-0012")


def test_an_id_is_text_and_no_markup() -> None:
    assert "<b>" not in format_id('Patient/<b>"hello"</b>-and-more-of-it')
