"""The verdict on a claim: one rule, the same for figures where higher and where lower is better.

A figure is held against the *less demanding* end of each range: the low one where higher is better, the high one
where lower is better. The whole 95 % interval decides, never the mean alone, and standing exactly on a figure counts
as reaching it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible.module_utils.ai_idp.sample_statistics import Interval

CONFIRMED, WITHIN_EXPECTED, MEETS_80_PERCENT = "confirmed", "within_expected", "meets_80_percent"
BELOW, REFUTED, IMPOSSIBLE, NOT_MEASURED = "below", "refuted", "impossible", "not_measured"
VERDICTS = (CONFIRMED, WITHIN_EXPECTED, MEETS_80_PERCENT, BELOW, REFUTED, IMPOSSIBLE, NOT_MEASURED)

HIGHER, LOWER = "higher", "lower"
# The owner's measure of success: "throughput within 80 % of corrected conservative estimates".
SUFFICIENT = 0.80
# A roofline may be this much too low: it counts the whole input embedding, of which a token reads one row, and
# bandwidths are those of data sheets or of a benchmark that does not reach all of it.
LIMIT_ERROR = 0.10


@dataclass(frozen=True)
class Promise:
    """What was documented and what is expected after correction; None where there is no such figure."""

    better: str
    unit: str
    documented_low: float | None = None
    documented_high: float | None = None
    expected_low: float | None = None
    expected_high: float | None = None


@dataclass(frozen=True)
class Limit:
    """What arithmetic allows at best, in the claim's unit, and the sentence that derives it.

    0 for a figure where higher is better means that it can't run at all.
    """

    value: float
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What is known about a claim on one host.

    ``missing`` says why there is nothing that can be held against it (no result, another subject, an invalid one).
    ``disturbed`` says why the figures may be worse than the machine is (it was busy or throttled).
    """

    interval: Interval | None = None
    missing: str = ""
    limit: Limit | None = None
    disturbed: str = ""


@dataclass(frozen=True)
class Judgement:
    verdict: str
    reason: str


def figure(value: float) -> str:
    """A number as people write it: three digits, or as many as a whole number has."""
    magnitude = abs(value)
    if magnitude >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    if "e" in text and magnitude > 1:
        # Three digits of 999.6 are 1e+03.
        return f"{value:,.0f}"
    return f"{value:.2e}" if 0 < magnitude < 0.001 else text


class _Scale:
    """Turns the claim's figures so that more is always better, and words them."""

    def __init__(self, promise: Promise) -> None:
        self.unit = promise.unit
        self.higher = promise.better == HIGHER
        self.documented = promise.documented_low if self.higher else promise.documented_high
        self.expected = promise.expected_low if self.higher else promise.expected_high
        self.sufficient: float | None = None
        if self.expected is not None:
            # In hundreds, so that 80 % of 60 is 48 and not 48.000000000000007.
            self.sufficient = self.expected * 80 / 100 if self.higher else self.expected * 100 / 80

    def reaches(self, value: float, line: float) -> bool:
        """``value`` is at the line or better."""
        return value >= line if self.higher else value <= line

    def worst(self, interval: Interval) -> float:
        value: float = interval.low if self.higher else interval.high
        return value

    def best(self, interval: Interval) -> float:
        value: float = interval.high if self.higher else interval.low
        return value

    def all_reach(self, interval: Interval, line: float | None) -> bool:
        return line is not None and self.reaches(self.worst(interval), line)

    def none_reaches(self, interval: Interval, line: float | None) -> bool:
        return line is not None and not self.reaches(self.best(interval), line)

    def straddles(self, interval: Interval, line: float | None) -> bool:
        return line is not None and not self.all_reach(interval, line) and not self.none_reaches(interval, line)

    def beyond(self, value: float, limit: Limit) -> bool:
        """``value`` is better than the limit allows, its error counted in."""
        if self.higher:
            return value > limit.value * (1 + LIMIT_ERROR)
        return value * (1 + LIMIT_ERROR) < limit.value

    def text(self, value: float) -> str:
        return f"{figure(value)} {self.unit}"

    @property
    def at_or_better(self) -> str:
        return "at or above" if self.higher else "at or under"

    @property
    def worse(self) -> str:
        return "below" if self.higher else "above"

    @property
    def sufficient_text(self) -> str:
        assert self.expected is not None
        assert self.sufficient is not None
        how = f"80 % of the {figure(self.expected)} expected"
        if not self.higher:
            how = f"{figure(self.expected)} expected, divided by 0.8"
        return f"{self.text(self.sufficient)} ({how})"


def judge(promise: Promise, evidence: Evidence) -> Judgement:
    """The verdict and its reason. The first rule that holds decides:

    1. ``impossible``: the limit that arithmetic sets is worse than even the less demanding end of what was documented.
    2. ``not_measured``: there is nothing to hold against the claim (no result, another subject, an invalid result), no
       interval (fewer than two runs), or the whole interval is better than the limit allows, so that something else
       was measured.
    3. ``confirmed``: the whole interval is at or better than the documented figure.
    4. ``within_expected``: the whole interval is at or better than the expected figure; or neither a documented nor
       an expected figure was given, which the reason says.
    5. ``meets_80_percent``: the whole interval is at or better than 80 % of the expected figure (where lower is
       better: the expected figure divided by 0.8).
    6. ``refuted``: the whole interval is worse than the documented figure, and worse than 80 % of the expected figure
       where there is one.
    7. ``below``: anything else; the interval straddles a figure, or there is no documented one to refute.

    A result of a busy or throttled machine can be good (3 to 5) but not bad: 6 and 7 become ``not_measured``, since the
    machine may be better than it looked.
    """
    scale, limit = _Scale(promise), evidence.limit
    if limit is not None and scale.documented is not None and scale.beyond(scale.documented, limit):
        return Judgement(IMPOSSIBLE, f"{limit.reason}; documented is {_range_text(promise)}")
    interval = evidence.interval
    if evidence.missing:
        return Judgement(NOT_MEASURED, evidence.missing)
    if interval is None:
        return Judgement(NOT_MEASURED, "no interval: at least two runs are needed")
    if limit is not None and scale.beyond(scale.worst(interval), limit):
        return Judgement(
            NOT_MEASURED,
            f"the whole interval is better than is physically possible, so something else was measured: {limit.reason}",
        )
    good = _good(scale, interval, limit)
    if good is not None:
        note = f"; measured although {evidence.disturbed}, so it may be better still" if evidence.disturbed else ""
        return Judgement(good.verdict, good.reason + note)
    bad = _bad(scale, interval)
    if evidence.disturbed:
        return Judgement(
            NOT_MEASURED,
            f"{evidence.disturbed}, so a bad result says nothing about the claim ({bad.reason}); measure again",
        )
    return bad


def _good(scale: _Scale, interval: Interval, limit: Limit | None) -> Judgement | None:
    """Rules 3 to 5."""
    documented, expected = scale.documented, scale.expected
    if documented is not None and scale.all_reach(interval, documented):
        return Judgement(
            CONFIRMED, f"the whole interval is {scale.at_or_better} the {scale.text(documented)} documented"
        )
    if expected is not None and scale.all_reach(interval, expected):
        reason = f"the whole interval is {scale.at_or_better} the {scale.text(expected)} expected after correction"
        return Judgement(WITHIN_EXPECTED, reason + _documented_text(scale, interval))
    if documented is None and expected is None:
        reason = "no figure was promised"
        if limit is not None:
            reason += f"; the interval lies within what is physically possible ({scale.text(limit.value)})"
        return Judgement(WITHIN_EXPECTED, reason)
    if expected is not None and scale.all_reach(interval, scale.sufficient):
        return Judgement(
            MEETS_80_PERCENT,
            f"the whole interval is {scale.at_or_better} {scale.sufficient_text}" + _documented_text(scale, interval),
        )
    return None


def _documented_text(scale: _Scale, interval: Interval) -> str:
    if scale.documented is None:
        return ""
    if scale.straddles(interval, scale.documented):
        return f"; it straddles the {scale.text(scale.documented)} documented"
    return f", and {scale.worse} the {scale.text(scale.documented)} documented"


def _bad(scale: _Scale, interval: Interval) -> Judgement:
    """Rules 6 and 7."""
    documented, sufficient = scale.documented, scale.sufficient
    if scale.none_reaches(interval, documented) and (sufficient is None or scale.none_reaches(interval, sufficient)):
        assert documented is not None
        reason = f"the whole interval is {scale.worse} the {scale.text(documented)} documented"
        if sufficient is not None:
            reason += f" and {scale.worse} {scale.sufficient_text}"
        return Judgement(REFUTED, reason)
    crossed = []
    if scale.straddles(interval, sufficient):
        crossed.append(scale.sufficient_text)
    if scale.straddles(interval, documented):
        assert documented is not None
        crossed.append(f"the {scale.text(documented)} documented")
    if crossed:
        return Judgement(BELOW, f"the interval straddles {' and '.join(crossed)}")
    return Judgement(
        BELOW, f"the whole interval is {scale.worse} {scale.sufficient_text}; nothing was documented that it refutes"
    )


def range_text(low: float | None, high: float | None) -> str:
    """``140\u2013170``, ``22`` or nothing, as the CSV and the sentences have it."""
    if low is None or high is None:
        return ""
    return f"{low:g}" if low == high else f"{low:g}\u2013{high:g}"


def _range_text(promise: Promise) -> str:
    return f"{range_text(promise.documented_low, promise.documented_high)} {promise.unit}"
