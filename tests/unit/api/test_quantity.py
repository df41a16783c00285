"""Quantities: exact values, rounding up, canonical forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch.api import quantity

SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@pytest.mark.parametrize(
    ("text", "value", "milli", "canonical"),
    [
        ("100m", 1, 100, "100m"),
        ("1.5", 2, 1500, "1500m"),
        ("64Mi", 64 << 20, (64 << 20) * 1000, "64Mi"),
        ("1Gi", 1 << 30, (1 << 30) * 1000, "1Gi"),
        ("1G", 10**9, 10**12, "1G"),
        ("12e6", 12 * 10**6, 12 * 10**9, "12e6"),
        (2, 2, 2000, "2"),
        ("-1.5", -2, -1500, "-1500m"),
    ],
)
def test_values_and_forms(text, value, milli, canonical):
    assert (quantity.value(text), quantity.milli(text), quantity.canonical(text)) == (value, milli, canonical)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 Gi", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("1K", "unable to parse quantity's suffix"),
        (".", "unable to parse numeric part of quantity"),
    ],
)
def test_malformed_quantities_say_so_in_upstreams_words(text, message):
    with pytest.raises(ValueError) as caught:
        quantity.canonical(text)
    assert str(caught.value) == message


@given(st.integers(-(10**9), 10**9), st.sampled_from(sorted(SUFFIXES)))
def test_the_canonical_form_is_stable_and_keeps_the_value(number, suffix):
    text = f"{number}{suffix}"
    canonical = quantity.canonical(text)
    assert quantity.canonical(canonical) == canonical
    assert quantity.milli(canonical) == quantity.milli(text)
    if SUFFIXES[suffix] >= 0:
        assert quantity.value(text) == number * 10 ** SUFFIXES[suffix]


@given(st.integers(0, 2**62))
def test_bytes_print_in_binary_and_parse_back(count):
    assert quantity.value(quantity.from_bytes(count)) == count


def test_milli_units_print_canonically():
    assert [quantity.from_milli(250), quantity.from_milli(2000), quantity.from_milli(0)] == ["250m", "2", "0"]
