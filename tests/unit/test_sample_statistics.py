"""sample_statistics against scipy's and numpy's figures, and what it refuses."""

import math
import random
import statistics

import numpy as np
import pytest
import scipy.special
import scipy.stats
from ansible.module_utils.ai_idp import sample_statistics as ours
from ansible.module_utils.ai_idp.sample_statistics import StatisticsError, summarize

FREEDOMS = (0.5, 1, 1.5, 2, 2.7, 3, 4, 5, 7.3, 9, 19, 30, 99.5, 1000, 1e5)
PROBABILITIES = (0.001, 0.025, 0.3, 0.4999, 0.5, 0.5001, 0.6, 0.75, 0.9, 0.95, 0.975, 0.995, 0.9999, 0.999999)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_quantiles_of_student_s_t_are_scipy_s(freedom: float) -> None:
    for probability in PROBABILITIES:
        expected = scipy.stats.t.ppf(probability, freedom)
        assert ours.t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_tails_of_student_s_t_are_scipy_s(freedom: float) -> None:
    for t in (0.0, 1e-9, 1e-3, 0.5, 1.0, 2.5, 10.0, 1e3):
        assert ours.t_tail(t, freedom) == pytest.approx(scipy.stats.t.sf(t, freedom), rel=2e-9, abs=1e-300)


def test_incomplete_beta_is_scipy_s() -> None:
    for a in (0.25, 0.5, 1, 2.5, 10, 200):
        for b in (0.5, 1, 3, 50):
            for x in (0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-9, 1.0):
                expected = scipy.special.betainc(a, b, x)
                assert ours.incomplete_beta(a, b, x) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_known_quantiles_of_tables() -> None:
    """What any printed table says, so that the test does not hang on scipy alone."""
    for freedom, value in ((1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)):
        assert ours.t_quantile(0.975, freedom) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_summaries_are_scipy_s(n: int, confidence: float) -> None:
    chance = random.Random(n)
    values = [chance.lognormvariate(4, 0.2) for _ in range(n)]
    found = summarize(values, confidence)
    low, high = scipy.stats.t.interval(confidence, n - 1, np.mean(values), scipy.stats.sem(values))
    assert (found.n, found.mean) == (n, pytest.approx(np.mean(values), rel=1e-12))
    assert found.sd == pytest.approx(statistics.stdev(values), rel=1e-12)
    assert (found.ci95_low, found.ci95_high) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))


def test_one_sample_gets_no_interval() -> None:
    assert summarize([4.5]) == ours.Summary(1, 4.5, None, None, None)
    assert summarize([4.5]).interval is None


@pytest.mark.parametrize("value", [0.0, 0.1, 61.3, -2.5, 1e300])
def test_samples_that_are_all_the_same_have_no_width(value: float) -> None:
    found = summarize([value] * 7)
    assert (found.sd, found.ci95_low, found.ci95_high) == (0.0, pytest.approx(value), pytest.approx(value))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([], "there is no value"),
        ([1.0, math.nan], "value 2 is nan"),
        ([math.inf, 1.0], "value 1 is inf"),
        ([1.0, -math.inf], "value 2 is -inf"),
        ([1.0, None], "value 2 is None"),
        (["61"], "value 1 is '61'"),
        ([True, False], "value 1 is True"),
    ],
)
def test_what_is_no_number_is_refused(values: list[float], sentence: str) -> None:
    for call in (
        lambda: summarize(values),
        lambda: ours.welch(values, [1.0, 2.0]),
        lambda: ours.welch([1.0, 2.0], values),
        lambda: ours.ratio_interval(values, [1.0, 2.0]),
        lambda: ours.bootstrap_interval(values, statistics.median),
        lambda: ours.percentile(values, 50),
    ):
        with pytest.raises(StatisticsError, match=sentence):
            call()


@pytest.mark.parametrize(
    ("probability", "freedom"), [(0, 3), (1, 3), (1.5, 3), (math.nan, 3), (0.9, 0), (0.9, -1), (0.9, math.inf)]
)
def test_quantiles_that_do_not_exist_are_refused(probability: float, freedom: float) -> None:
    with pytest.raises(StatisticsError):
        ours.t_quantile(probability, freedom)


def test_confidence_outside_its_bounds_is_refused() -> None:
    for confidence in (0, 1, 95, -0.5):
        with pytest.raises(StatisticsError, match="confidence"):
            summarize([1.0, 2.0], confidence)
        with pytest.raises(StatisticsError, match="confidence"):
            ours.bootstrap_interval([1.0, 2.0], statistics.median, confidence, 10)


@pytest.mark.parametrize(("n_a", "n_b"), [(2, 2), (5, 5), (5, 3), (2, 30)])
def test_welch_is_scipy_s(n_a: int, n_b: int) -> None:
    chance = random.Random(n_a * 100 + n_b)
    a = [chance.gauss(80, 2) for _ in range(n_a)]
    b = [chance.gauss(75, 9) for _ in range(n_b)]
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval(0.95)
    found = ours.welch(a, b)
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert found.degrees_of_freedom == pytest.approx(expected.df, rel=1e-9)
    assert (found.ci95_low, found.ci95_high) == (
        pytest.approx(interval.low, rel=1e-9),
        pytest.approx(interval.high, rel=1e-9),
    )
    assert (found.outcome == "inconclusive") == (expected.pvalue > 0.05)


def test_better_and_worse_know_the_direction() -> None:
    fast, slow = [80.1, 80.4, 79.9], [60.2, 60.1, 59.8]
    assert ours.welch(fast, slow).outcome == "better"
    assert ours.welch(slow, fast).outcome == "worse"
    assert ours.welch(fast, slow, higher_is_better=False).outcome == "worse"
    assert ours.welch(slow, fast, higher_is_better=False).outcome == "better"
    assert ours.welch(fast, [*slow, 120.0]).outcome == "inconclusive"


def test_welch_needs_two_samples_on_either_side() -> None:
    for a, b in (([80.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [80.0])):
        found = ours.welch(a, b)
        assert (found.ci95_low, found.ci95_high, found.outcome) == (None, None, "inconclusive")


def test_welch_of_constant_samples() -> None:
    same = ours.welch([5.0] * 3, [5.0] * 4)
    assert (same.ci95_low, same.ci95_high, same.outcome) == (0.0, 0.0, "inconclusive")
    assert ours.welch([5.0] * 3, [4.0] * 3).outcome == "better"
    one_sided = ours.welch([5.0] * 3, [4.0, 4.1, 3.9])
    assert one_sided.degrees_of_freedom == pytest.approx(2)
    tiny = ours.welch([1e-160, 2e-160, 3e-160], [1e-160, 2e-160, 3e-160])
    assert tiny.outcome == "inconclusive"


def test_ratios_are_scipy_s_on_the_logarithms() -> None:
    a, b = [81.2, 82.9, 81.7, 83.4, 82.3], [21.0, 22.4, 20.8, 21.5, 21.9]
    expected = scipy.stats.ttest_ind(np.log(a), np.log(b), equal_var=False).confidence_interval(0.95)
    found = ours.ratio_interval(a, b)
    assert found.ratio == pytest.approx(scipy.stats.gmean(a) / scipy.stats.gmean(b))
    assert (found.ci95_low, found.ci95_high) == (
        pytest.approx(np.exp(expected.low), rel=1e-9),
        pytest.approx(np.exp(expected.high), rel=1e-9),
    )
    # Near that of arithmetic means, and the other way round it is the reciprocal.
    assert found.ratio == pytest.approx(np.mean(a) / np.mean(b), rel=0.002)
    back = ours.ratio_interval(b, a)
    assert back.ci95_low == pytest.approx(1 / found.ci95_high)
    assert back.ci95_high == pytest.approx(1 / found.ci95_low)


def test_ratios_refuse_what_has_none() -> None:
    for a, b in (([1.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [-1.0, 2.0])):
        with pytest.raises(StatisticsError, match="above 0"):
            ours.ratio_interval(a, b)
    single = ours.ratio_interval([8.0], [2.0, 2.0])
    assert (single.ratio, single.ci95_low) == (pytest.approx(4.0), None)
    wild = ours.ratio_interval([1e-300, 1e300], [1.0, 1.1])
    assert wild.ci95_high is None


@pytest.mark.parametrize("percent", [0, 5, 50, 95, 99, 100])
def test_percentiles_are_numpy_s(percent: float) -> None:
    chance = random.Random(1)
    for n in (1, 2, 3, 20, 101):
        values = [chance.expovariate(1) for _ in range(n)]
        assert ours.percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_percentiles_outside_their_bounds_are_refused() -> None:
    for percent in (-1, 101, math.nan):
        with pytest.raises(StatisticsError):
            ours.percentile([1.0], percent)


@pytest.mark.parametrize("percent", [50, 95])
def test_bootstrapped_percentiles_are_scipy_s(percent: float) -> None:
    """Both draw at random: their ends agree to a small part of the interval's width."""
    chance = random.Random(7)
    values = [chance.lognormvariate(4.6, 0.3) for _ in range(200)]
    expected = scipy.stats.bootstrap(
        (values,), lambda x, axis: np.percentile(x, percent, axis=axis), method="percentile", n_resamples=4000,
        rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    found = ours.bootstrap_interval(values, lambda drawn: ours.percentile(drawn, percent))
    assert found is not None
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.12 * width)
    assert found.high == pytest.approx(expected.high, abs=0.12 * width)


def test_the_bootstrap_gives_the_same_answer_again() -> None:
    values = [float(value) for value in range(30)]
    assert ours.bootstrap_interval(values, statistics.median, resamples=200) == ours.bootstrap_interval(
        values, statistics.median, resamples=200
    )
    assert ours.bootstrap_interval([1.0], statistics.median) is None
    assert ours.bootstrap_runs([[1.0, 2.0]], statistics.median) is None
    assert ours.bootstrap_runs([[1.0, 2.0], []], statistics.median) is None


def test_the_bootstrap_of_runs_sees_that_runs_differ() -> None:
    """Five runs that differ by more than their requests: one heap of them looks far too certain."""
    chance = random.Random(5)
    runs = [[base + chance.gauss(0, 1) for _ in range(40)] for base in (80, 90, 100, 110, 120)]
    heap = ours.bootstrap_interval([x for run in runs for x in run], statistics.mean, resamples=400)
    drawn = ours.bootstrap_runs(runs, statistics.mean, resamples=400)
    assert heap is not None
    assert drawn is not None
    assert drawn.high - drawn.low > 2 * (heap.high - heap.low)


def test_the_interval_of_a_percentile_holds_both() -> None:
    chance = random.Random(9)
    runs = [[chance.lognormvariate(4.6 + shift, 0.3) for _ in range(30)] for shift in (-0.1, 0, 0.05, 0.1, 0)]
    per_run = [ours.percentile(run, 95) for run in runs]
    both = ours.percentile_interval(per_run, runs, 95)
    student = summarize(per_run).interval
    drawn = ours.bootstrap_runs(runs, lambda values: ours.percentile(values, 95))
    assert both is not None
    assert student is not None
    assert drawn is not None
    assert (both.low, both.high) == (min(student.low, drawn.low), max(student.high, drawn.high))
    assert ours.percentile_interval(per_run[:1], runs[:1], 95) is None
    assert ours.percentile_interval(per_run, [], 95) == student


def test_the_intervals_hold_what_they_promise() -> None:
    """Of 95 % intervals of five samples, 95 % hold the truth (2,000 draws: 93.6 to 96.4 % is three sigma)."""
    chance = random.Random(11)
    factor = ours.t_quantile(0.975, 4) / math.sqrt(5)
    held = 0
    for _ in range(2000):
        values = [chance.gauss(100, 7) for _ in range(5)]
        held += abs(statistics.fmean(values) - 100) <= factor * statistics.stdev(values)
    assert 0.936 <= held / 2000 <= 0.964
