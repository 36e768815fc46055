import pytest

from inferd.control.simulation.traces import read_traces
from inferd.errors import SpecError


def of(*traces, known=("m",), duration_s=None):
    return read_traces(traces, list(known), duration_s, known[0] if len(known) == 1 else None)


def test_rates_bursts_and_counts_go_to_the_only_model_or_to_the_one_named():
    assert of("poisson:300") == ([{"target": "m", "process": {"poisson": {"rate": 300.0}}}], 60.0)
    sources, duration_s = of("a=bursty:10,4", "b=at-once:5", known=("a", "b"), duration_s=3.0)
    assert sources == [
        {"target": "a", "process": {"gamma": {"rate": 10.0, "cv": 4.0}}},
        {"target": "b", "process": {"at_once": {"count": 5}}},
    ]
    assert duration_s == 3.0


def test_a_file_of_arrivals_may_name_models_rows_and_tenants_and_lasts_as_long_as_it_says(tmp_path):
    file = tmp_path / "arrivals.csv"
    file.write_text("time_s,model,rows,tenant\n2.5,b,3,red\n0.5,a\n1,a,2,blue\n1.5,,1,red\n")
    sources, duration_s = of(f"a={file}", known=("a", "b"))
    assert [(source["target"], source["process"]["trace"]["requests"]) for source in sources] == [
        ("b", [(2.5, 3, 1)]),
        ("a", [(0.5, 1, 0), (1.0, 2, 2), (1.5, 1, 1)]),
    ]
    assert 2.5 < duration_s < 2.51
    file.write_text("0.25\n0.75\n")
    assert of(str(file))[0][0]["process"]["trace"]["requests"] == [(0.25, 1, 0), (0.75, 1, 0)]


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        ("posson:3", "poisson:RATE"),
        ("poisson:three", "'three' is not a number"),
        ("poisson:-1", "not understood"),
        ("bursty:10", "bursty:RATE,CV"),
        ("at-once:1.5", "at-once:COUNT"),
        ("poisson:3", "whose requests?"),
        ("c=poisson:3", "known are a, b"),
        ("nothing.csv", "No such file"),
    ],
)
def test_what_is_no_trace_is_answered_with_what_would_be_one(trace, words):
    with pytest.raises(SpecError) as fault:
        of(trace, known=("a", "b"))
    assert words in str(fault.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("time_s\n", "no requests"), ("1,a\nsoon,a\n", ":2: time_s"), ("1,c\n", ":1: 'c'"), ("1\n", ":1: names no model")],
)
def test_a_fault_in_a_file_is_told_with_its_line(tmp_path, text, words):
    file = tmp_path / "arrivals.csv"
    file.write_text(text)
    with pytest.raises(SpecError) as fault:
        of(str(file), known=("a", "b"))
    assert words in str(fault.value)
