"""verdict: every rule, both directions, and what happens exactly on a line."""

from typing import Any

import pytest
from ansible.module_utils.ai_idp import verdict
from ansible.module_utils.ai_idp.sample_statistics import Interval
from ansible.module_utils.ai_idp.verdict import Evidence, Limit, Promise, judge

# vLLM's throughput and its TTFT, as the owner's plan has them.
THROUGHPUT = Promise("higher", "tok/s", 140, 170, 60, 100)
TTFT = Promise("lower", "ms", 22, 22, 80, 150)
CEILING = "at most 3.2 tok/s"


def words(promise: Promise, low: float, high: float, **evidence: Any) -> str:
    return str(judge(promise, Evidence(Interval(low, high), **evidence)).verdict)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (140, 150, "confirmed"),  # exactly on the documented low end
        (139.999, 150, "within_expected"),  # straddles it, all above the expected
        (171, 180, "confirmed"),  # better than all of it
        (60, 100, "within_expected"),
        (60, 60, "within_expected"),  # no width
        (59.999, 200, "meets_80_percent"),
        (48, 50, "meets_80_percent"),  # exactly 80 % of 60
        (47.999, 50, "below"),
        (47.999, 200, "below"),  # too wide to say anything
        (40, 48, "below"),  # its upper end stands on the line, so not all of it is worse
        (40, 47.999, "refuted"),
        (0, 0, "refuted"),
    ],
)
def test_higher_is_better(low: float, high: float, expected: str) -> None:
    assert words(THROUGHPUT, low, high) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (20, 22, "confirmed"),
        (1, 2, "confirmed"),
        (20, 22.001, "within_expected"),
        (80, 150, "within_expected"),
        (149, 150.001, "meets_80_percent"),
        (180, 187.5, "meets_80_percent"),  # exactly 150 / 0.8
        (180, 187.501, "below"),
        (187.5, 200, "below"),
        (187.501, 200, "refuted"),
    ],
)
def test_lower_is_better(low: float, high: float, expected: str) -> None:
    assert words(TTFT, low, high) == expected


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_directions_mirror_each_other(better: str) -> None:
    """Lower is better on x is higher is better on 1/x."""
    for low, high, expected in ((140, 150, "confirmed"), (61, 70, "within_expected"), (48.1, 59, "meets_80_percent"),
                                (40, 50, "below"), (10, 20, "refuted")):  # fmt: skip
        if better == "higher":
            assert words(THROUGHPUT, low, high) == expected
        else:
            mirrored = Promise("lower", "s", 1 / 170, 1 / 140, 1 / 100, 1 / 60)
            assert words(mirrored, 1 / high, 1 / low) == expected


def test_nothing_documented() -> None:
    promise = Promise("higher", "tok/s", None, None, 60, 100)
    assert words(promise, 60, 70) == "within_expected"
    assert words(promise, 48, 70) == "meets_80_percent"
    assert words(promise, 40, 50) == "below"
    found = judge(promise, Evidence(Interval(10, 20)))
    assert (found.verdict, "nothing was documented that it refutes" in found.reason) == ("below", True)


def test_nothing_expected() -> None:
    promise = Promise("lower", "ms", 0.4, 0.4)
    assert words(promise, 0.3, 0.4) == "confirmed"
    assert words(promise, 0.39, 0.41) == "below"
    assert words(promise, 0.4, 0.5) == "below"
    assert words(promise, 0.401, 0.5) == "refuted"


def test_nothing_promised() -> None:
    promise = Promise("higher", "tok/s")
    found = judge(promise, Evidence(Interval(10, 11)))
    assert found == verdict.Judgement("within_expected", "no figure was promised")
    limited = judge(promise, Evidence(Interval(10, 11), limit=Limit(18.2, CEILING)))
    assert limited.verdict == "within_expected"
    assert "physically possible (18.2 tok/s)" in limited.reason


def test_documented_that_asks_less_than_the_expected() -> None:
    promise = Promise("higher", "tok/s", 10, 20, 60, 100)
    assert words(promise, 11, 12) == "confirmed"
    assert words(promise, 9, 12) == "below"
    assert words(promise, 5, 9) == "refuted"


def test_impossible_comes_first() -> None:
    hybrid = Promise("higher", "tok/s", 30, 40)
    found = judge(hybrid, Evidence(missing="no result", limit=Limit(3.2, CEILING)))
    assert found == verdict.Judgement("impossible", "at most 3.2 tok/s; documented is 30\u201340 tok/s")
    assert words(hybrid, 31, 35, limit=Limit(3.2, CEILING)) == "impossible"
    assert judge(hybrid, Evidence(missing="no result", limit=Limit(0, "the memory can't hold it"))).verdict == (
        "impossible"
    )


def test_a_limit_that_leaves_room_decides_nothing() -> None:
    hybrid = Promise("higher", "tok/s", 30, 40)
    assert judge(hybrid, Evidence(missing="no result", limit=Limit(78.8, "at most 78.8"))).verdict == "not_measured"
    # The limit may be 10 % too low: 27.3 allows 30, 27.2 does not.
    assert judge(hybrid, Evidence(missing="x", limit=Limit(27.3, ""))).verdict == "not_measured"
    assert judge(hybrid, Evidence(missing="x", limit=Limit(27.2, ""))).verdict == "impossible"


def test_impossible_where_lower_is_better() -> None:
    promise = Promise("lower", "ms", 0.4, 0.5)
    assert judge(promise, Evidence(missing="x", limit=Limit(0.56, "at least 0.56 ms"))).verdict == "impossible"
    assert judge(promise, Evidence(missing="x", limit=Limit(0.54, "at least 0.54 ms"))).verdict == "not_measured"


def test_better_than_physics_allows_is_another_measurement() -> None:
    found = judge(THROUGHPUT, Evidence(Interval(180, 200), limit=Limit(161, "896 GB/s / 5.57 GB")))
    assert found.verdict == "not_measured"
    assert "physically possible" in found.reason
    assert words(THROUGHPUT, 170, 200, limit=Limit(161, "")) == "confirmed"  # within the limit's error
    assert words(TTFT, 1, 2, limit=Limit(20, "")) == "not_measured"


def test_without_an_interval_there_is_no_verdict() -> None:
    assert judge(THROUGHPUT, Evidence()) == verdict.Judgement(
        "not_measured", "no interval: at least two runs are needed"
    )
    assert judge(THROUGHPUT, Evidence(Interval(150, 160), missing="measured something else")) == verdict.Judgement(
        "not_measured", "measured something else"
    )


def test_a_disturbed_machine_can_be_good_but_not_bad() -> None:
    busy = "the machine was busy in run 2"
    assert words(THROUGHPUT, 150, 160, disturbed=busy) == "confirmed"
    assert words(THROUGHPUT, 50, 55, disturbed=busy) == "meets_80_percent"
    for low, high in ((10, 20), (40, 50)):
        found = judge(THROUGHPUT, Evidence(Interval(low, high), disturbed=busy))
        assert found.verdict == "not_measured"
        assert busy in found.reason


@pytest.mark.parametrize(
    ("promise", "low", "high", "reason"),
    [
        (THROUGHPUT, 150, 160, "the whole interval is at or above the 140 tok/s documented"),
        (
            THROUGHPUT,
            81,
            83,
            "the whole interval is at or above the 60 tok/s expected after correction, and below the 140 tok/s "
            "documented",
        ),
        (
            THROUGHPUT,
            130,
            150,
            "the whole interval is at or above the 60 tok/s expected after correction; it straddles the 140 tok/s "
            "documented",
        ),
        (
            TTFT,
            160,
            180,
            "the whole interval is at or under 188 ms (150 expected, divided by 0.8), and above the 22 ms documented",
        ),
        (
            THROUGHPUT,
            10,
            20,
            "the whole interval is below the 140 tok/s documented and below 48 tok/s (80 % of the 60 expected)",
        ),
        (THROUGHPUT, 40, 50, "the interval straddles 48 tok/s (80 % of the 60 expected)"),
        (
            THROUGHPUT,
            40,
            150,
            "the interval straddles 48 tok/s (80 % of the 60 expected) and the 140 tok/s documented",
        ),
    ],
)
def test_reasons_name_the_figures(promise: Promise, low: float, high: float, reason: str) -> None:
    assert judge(promise, Evidence(Interval(low, high))).reason == reason


def test_every_case_has_one_of_the_verdicts() -> None:
    """A grid over figures that are there or not, and intervals around every line: no case falls through."""
    ends = [0.0, 1.0, 47.9, 48.0, 59.9, 60.0, 100.0, 139.9, 140.0, 170.0, 500.0]
    seen = set()
    for better in ("higher", "lower"):
        for documented in ((None, None), (140.0, 170.0), (48.0, 48.0)):
            for expected in ((None, None), (60.0, 100.0)):
                promise = Promise(better, "u", *documented, *expected)
                for low in ends:
                    for high in (end for end in ends if end >= low):
                        seen.add(words(promise, low, high))
    assert seen == {"confirmed", "within_expected", "meets_80_percent", "below", "refuted"}


def test_figures_are_short() -> None:
    assert [verdict.figure(value) for value in (48.0, 187.5, 0.4, 3074.2, 0.00012, 0, 999.4, 999.6)] == [
        "48", "188", "0.4", "3,074", "1.20e-04", "0", "999", "1,000",
    ]  # fmt: skip
    assert [verdict.range_text(*ends) for ends in ((140, 170), (22, 22), (0.4, 0.4), (None, None))] == [
        "140\u2013170", "22", "0.4", "",
    ]  # fmt: skip
