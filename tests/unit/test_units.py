import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.spec.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("1.5s", 1.5),
        ("10min", 600),
        ("2h", 7200),
        ("250us", 0.00025),
        (" 3 m ", 180),
        (7, 7),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_read_with_its_unit(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("64MiB", 64 << 20), ("1.5GB", 1_500_000_000), (1024, 1024), ("2 KiB", 2048), ("7B", 7)]
)
def test_a_size_is_read_with_its_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "ms", "20", "-3ms", "20 parsecs", "1e3s", None, True, [], "999999999h", float("nan")]
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"write|use|century"):
        parse_duration(text, unit_needed=True)


@pytest.mark.parametrize("text", ["", "MiB", "-3", "20 parsecs", None, False, {}, -1])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"write|use"):
        parse_size(text)


@given(st.integers(0, 2**50))
def test_a_size_that_was_written_reads_back(size):
    assert parse_size(format_size(size)) == size


@given(st.integers(1, 10**9))
def test_a_duration_that_was_written_reads_back(microseconds):
    assert parse_duration(format_duration(microseconds / 1e6)) == pytest.approx(microseconds / 1e6, rel=1e-5)
