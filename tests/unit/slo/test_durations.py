"""Durations as people write them."""

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from holdfast_slo.durations import Duration, format_duration, parse_duration


@settings(deadline=None)
@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=3660)))
def test_what_is_written_is_read_back(duration):
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("15s", 15),
        ("1m30s", 90),
        ("2h", 7_200),
        ("30d", 2_592_000),
        ("1.5s", 1.5),
        ("0", 0),
        (" 3s ", 3),
    ],
)
def test_every_unit_is_read(text, seconds):
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-3s", "5", "5 s x", "1s1m", "1m1m", "4000d", "1e9s", "٣s x", "9" * 70 + "s"]
)
def test_anything_else_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match="500ms"):
        parse_duration(text)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_no_text_breaks_the_parser(text):
    with suppress(ValueError):
        assert parse_duration(text) >= timedelta()


@pytest.mark.parametrize("value", [90, 1.5, True, None, [], timedelta(seconds=-1)])
def test_bare_numbers_and_other_kinds_are_no_durations(value):
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(value)


def test_a_bare_number_is_told_which_unit_it_lacks():
    with pytest.raises(ValidationError, match="'90s' for seconds"):
        TypeAdapter(Duration).validate_python(90)
