"""The report's plots: SVG texts that take their colours from the page, so that light and dark are one drawing.

Matplotlib wants colours that it knows. Each ink below is such a colour, used for nothing else, and replaced in the
finished SVG by the page's CSS variable of the same name. Equal input gives equal bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

# Widths are in points and show as CSS pixels at a scale of about one on a phone.
WIDTH = 270.0
LANE = 19.0
FONT = 10.0
# About what a digit takes of a line at that size, in the widest of the usual fonts.
DIGIT = 6.3
# A range of more than this cannot be read on a linear axis.
LOG_FROM = 50.0
# A limit farther out than this many times what was promised is only pointed at.
LIMIT_SHOWN = 1.5

DASH = "\N{EN DASH}"

_INKS = {
    "ink": "#010a01",
    "soft": "#010a02",
    "line": "#010a03",
    "documented": "#010a04",
    "expected": "#010a05",
    "surface": "#010a06",
    "accent": "#010a07",
    "confirmed": "#010a11",
    "within_expected": "#010a12",
    "meets_80_percent": "#010a13",
    "below": "#010a14",
    "refuted": "#010a15",
    "impossible": "#010a16",
    "not_measured": "#010a17",
}
_VARIABLES = {colour: f"var(--{name.replace('_', '-')})" for name, colour in _INKS.items()}

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT,
    "axes.linewidth": 0.7,
    "axes.edgecolor": _INKS["line"],
    "axes.labelcolor": _INKS["soft"],
    "axes.labelsize": FONT,
    "axes.unicode_minus": True,
    "text.color": _INKS["ink"],
    "text.parse_math": False,
    "xtick.color": _INKS["soft"],
    "ytick.color": _INKS["ink"],
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "hatch.linewidth": 0.7,
    "hatch.color": _INKS["documented"],
}


@dataclass(frozen=True)
class Span:
    """A range of a claim; an end that is None is open."""

    low: float | None
    high: float | None

    @property
    def known(self) -> tuple[float, ...]:
        """The ends that there are."""
        return tuple(end for end in (self.low, self.high) if end is not None)


@dataclass(frozen=True)
class Measured:
    """A mean, its interval where there is one, and the runs that it comes from."""

    mean: float
    low: float | None
    high: float | None
    runs: tuple[float, ...] = ()

    @property
    def known(self) -> tuple[float, ...]:
        """Every number that a plot has to show."""
        return (self.mean, *(end for end in (self.low, self.high) if end is not None), *self.runs)


@dataclass(frozen=True)
class HistoryPoint:
    """One finished measurement of the past: when, on which hardware, and its runs (or its mean alone)."""

    when: str
    fingerprint: str
    values: tuple[float, ...]


def number(value: float) -> str:
    """A figure with about three significant digits, as a reader would write it."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size < 0.001:
        return f"{value:.2g}"
    decimals = 2 - math.floor(math.log10(size))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def span_text(low: float | None, high: float | None) -> str:
    """A range in words: "60 to 100" with a dash, "at least 60", "at most 5", or "" if there is none."""
    if low is None and high is None:
        return ""
    if low is None:
        return f"at most {number(high)}" if high is not None else ""
    if high is None:
        return f"at least {number(low)}"
    return number(low) if low == high else f"{number(low)}{DASH}{number(high)}"


def interval_texts(mean: float, low: float | None, high: float | None) -> tuple[str, str]:
    """Mean and interval with as many decimals as the interval's width justifies (two digits of its half)."""
    if low is None or high is None:
        return number(mean), ""
    half = (high - low) / 2
    if half <= 0:
        return number(mean), f"{number(low)}{DASH}{number(high)}"
    decimals = min(4, max(0, 1 - math.floor(math.log10(half))))
    return f"{mean:,.{decimals}f}", f"{low:,.{decimals}f}{DASH}{high:,.{decimals}f}"


@contextmanager
def _settings() -> Iterator[None]:
    """Matplotlib as it is shipped plus ours: what a user has set elsewhere must not change the bytes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def _finish(figure: Figure, slug: str, title: str, description: str) -> str:
    """The figure as an SVG element for a page that holds many: own ids, named for those who can't see it."""
    matplotlib.rcParams["svg.hashsalt"] = slug
    stream = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Matplotlib's style element would hold for the whole page.
    text = re.sub(r"\s*<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{slug}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{slug}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{slug}-\1)", text)
    # The page's font, at the plot's sizes.
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    size = re.search(r'viewBox="[^"]+"', text)
    opening = (
        f'<svg class="plot" {size.group(0) if size else ""} role="img" aria-labelledby="{slug}-title {slug}-desc">'
        f'<title id="{slug}-title">{escape(title)}</title><desc id="{slug}-desc">{escape(description)}</desc>'
    )
    text = opening + text[text.index(">") + 1 :]
    return re.sub(r"\n\s*", "\n", text).strip()


def _figure(height: float, *, left: float, right: float, bottom: float, top: float) -> tuple[Figure, Axes]:
    """A figure of the common width; margins in points."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    box = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
    axes = figure.add_axes(box)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _tick(value: float, _position: int | None = None) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 100_000 else f"{value:,.6g}".replace("-", "\N{MINUS SIGN}")


def _number_axis(axes: Axes, low: float, high: float, *, log: bool) -> None:
    """The horizontal axis of a claim, with few and plain ticks."""
    if log:
        axes.set_xscale("log")
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        step = max(1, math.ceil((last - first) / 4))
        axes.xaxis.set_major_locator(FixedLocator([10.0**power for power in range(first, last + 1, step)]))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_xlim(low, high)


def _spread(values: Sequence[float], width: float, height: float) -> list[float]:
    """Offsets that keep dots nearer than `width` apart: up, down, further up. No chance in it: bytes stay equal."""
    offsets: list[float] = []
    levels = [0.0, height, -height, 2 * height, -2 * height]
    for index, value in enumerate(values):
        taken = {offsets[other] for other in range(index) if abs(values[other] - value) < width}
        free = [level for level in levels if level not in taken]
        offsets.append(free[0] if free else levels[index % len(levels)])
    return offsets


def glance(
    slug: str,
    *,
    documented: Span | None,
    expected: Span | None,
    measured: Measured | None,
    limit: float | None,
    counts: bool,
    verdict: str,
    unit: str,
    better: str,
    title: str,
    description: str,
) -> str:
    """Documented against expected against measured on one axis; "" if there is nothing to draw.

    What was measured but does not count is drawn hollow, and never widens the axis beyond what the claim is about.
    """
    lanes: list[tuple[str, str]] = []
    promised = [*(documented.known if documented else ()), *(expected.known if expected else ())]
    if documented and documented.known:
        lanes.append(("documented", span_text(documented.low, documented.high)))
    if expected and expected.known:
        lanes.append(("expected", _short_span(expected)))
    if limit is not None:
        lanes.append(("limit", f"{'≤' if better == 'higher' else '≥'} {number(limit)}"))
    if measured is not None:
        mean, _ = interval_texts(measured.mean, measured.low, measured.high)
        lanes.append(("measured", mean if counts else f"({mean})"))
    if not lanes:
        return ""
    shown = list(promised)
    if limit is not None and (not promised or limit <= LIMIT_SHOWN * max(promised)):
        shown.append(limit)
    if measured is not None and (counts or not promised):
        shown += measured.known
    positive = [value for value in shown if value > 0]
    log = bool(positive) and min(shown) > 0 and max(positive) / min(positive) > LOG_FROM
    low = min(positive) / 2 if log else min(0.0, min(shown) * 1.1)
    high = max(max(shown) * (2.0 if log else 1.12), low + 1e-9)
    with _settings():
        right = max(len(text) for _, text in lanes) * DIGIT + 8
        figure, axes = _figure(len(lanes) * LANE + 37, left=69, right=right, bottom=34, top=3)
        _number_axis(axes, low, high, log=log)
        axes.set_ylim(len(lanes) - 0.5, -0.5)
        axes.set_yticks(range(len(lanes)), [name for name, _ in lanes])
        direction = "more is better" if better == "higher" else "less is better"
        axes.set_xlabel(f"{unit}, {direction}{', log scale' if log else ''}", labelpad=2)
        for row, (name, text) in enumerate(lanes):
            axes.axhline(row, color=_INKS["line"], linewidth=0.5, zorder=0)
            axes.text(1.04, row, text, transform=axes.get_yaxis_transform(), va="center", ha="left")
            if name == "measured" and measured is not None:
                _draw_measured(axes, row, measured, counts=counts, ink=_INKS[verdict], low=low, high=high)
            elif name == "limit" and limit is not None:
                _draw_limit(axes, row, limit, better, low, high)
            else:
                span = documented if name == "documented" else expected
                if span is not None:
                    _draw_span(axes, row, span, name, low, high)
        return _finish(figure, slug, title, description)


def _short_span(span: Span) -> str:
    """A range for the narrow column beside a plot."""
    text = span_text(span.low, span.high)
    return text.replace("at least ", "≥ ").replace("at most ", "≤ ")


def _draw_span(axes: Axes, row: int, span: Span, name: str, low: float, high: float) -> None:
    """A bar for a range, a diamond for a single figure. An open end runs to the axis's edge."""
    ink = _INKS[name]
    if span.low is not None and span.low == span.high:
        axes.plot([span.low], [row], marker="D", markersize=5, color=ink, linestyle="none")
        return
    start = span.low if span.low is not None else low
    end = span.high if span.high is not None else high
    # Documented is an outline with hatching, expected a solid bar: not told apart by colour alone.
    if name == "documented":
        axes.barh(
            row, end - start, left=start, height=0.5, facecolor="none", edgecolor=ink, hatch="/////", linewidth=0.9
        )
    else:
        axes.barh(row, end - start, left=start, height=0.5, color=ink, linewidth=0)


def _draw_limit(axes: Axes, row: int, limit: float, better: str, low: float, high: float) -> None:
    """A wall where the possible ends, and a line over what is possible."""
    if not low <= limit <= high:
        _point_beyond(axes, row, limit, _INKS["ink"], low, high)
        return
    axes.plot([low if better == "higher" else high, limit], [row, row], color=_INKS["ink"], linewidth=1)
    axes.plot([limit, limit], [row - 0.32, row + 0.32], color=_INKS["ink"], linewidth=2, clip_on=False)


def _point_beyond(axes: Axes, row: int, value: float, ink: str, low: float, high: float) -> None:
    """A triangle at the edge behind which the value lies."""
    edge, marker = (high, ">") if value > high else (low, "<")
    axes.plot([edge], [row], marker=marker, markersize=6, color=ink, linestyle="none", clip_on=False)


def _draw_measured(
    axes: Axes, row: int, measured: Measured, *, counts: bool, ink: str, low: float, high: float
) -> None:
    """The runs as faint dots, the interval as a line with ends, the mean as a dot (hollow when it does not count)."""
    if not low <= measured.mean <= high:
        # What lies beyond the claim's own scale is only pointed at.
        _point_beyond(axes, row, measured.mean, ink, low, high)
        return
    inside = [value for value in measured.runs if low <= value <= high]
    axes.plot(inside, [row] * len(inside), marker="o", markersize=3, color=ink, alpha=0.35, linestyle="none", mew=0)
    if measured.low is not None and measured.high is not None:
        start, end = max(measured.low, low), min(measured.high, high)
        axes.plot([start, end], [row, row], color=ink, linewidth=2.2, solid_capstyle="butt")
        for end_of_interval in (measured.low, measured.high):
            if low <= end_of_interval <= high:
                axes.plot([end_of_interval] * 2, [row - 0.24, row + 0.24], color=ink, linewidth=1.2)
    face = ink if counts else _INKS["surface"]
    axes.plot([measured.mean], [row], marker="o", markersize=6, mfc=face, mec=ink, mew=1.3, linestyle="none")


def strip(
    slug: str,
    *,
    measured: Measured,
    requests: Sequence[float],
    verdict: str,
    unit: str,
    title: str,
    description: str,
) -> str:
    """Every run as a dot on a scale of its own, over the requests' own figures where there are any."""
    lanes = ["runs", *(["requests"] if requests else [])]
    values = [*measured.known, *requests]
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.02 or 1.0
    with _settings():
        figure, axes = _figure(len(lanes) * 28 + 36, left=56, right=14, bottom=34, top=2)
        _number_axis(axes, low - margin, high + margin, log=False)
        axes.set_ylim(len(lanes) - 0.5, -0.5)
        axes.set_yticks(range(len(lanes)), lanes)
        axes.set_xlabel(f"{unit}, zoomed in: does not begin at 0", labelpad=2)
        near = (high - low + 2 * margin) * 0.025
        if measured.low is not None and measured.high is not None:
            axes.axvspan(measured.low, measured.high, ymin=0, ymax=1, color=_INKS[verdict], alpha=0.14, linewidth=0)
        axes.axvline(measured.mean, color=_INKS[verdict], linewidth=1.1)
        for row, dots in enumerate([measured.runs, tuple(requests)][: len(lanes)]):
            ordered = sorted(dots)
            offsets = _spread(ordered, near, 0.17)
            axes.plot(
                ordered,
                [row + offset for offset in offsets],
                marker="o",
                markersize=5 if row == 0 else 3,
                color=_INKS["ink"],
                alpha=0.75 if row == 0 else 0.4,
                linestyle="none",
                mew=0,
            )
        return _finish(figure, slug, title, description)


def sweep(
    slug: str,
    points: Sequence[tuple[float, Sequence[float]]],
    *,
    x_label: str,
    unit: str,
    title: str,
    description: str,
) -> str:
    """A figure against what was varied: each run a dot, the line through the means."""
    with _settings():
        figure, axes = _figure(160, left=42, right=14, bottom=34, top=20)
        places = [place for place, _ in points]
        for place, runs in points:
            axes.plot(
                [place] * len(runs), runs, marker="o", markersize=4, color=_INKS["ink"], alpha=0.4, ls="none", mew=0
            )
        means = [sum(runs) / len(runs) for _, runs in points]
        axes.plot(places, means, color=_INKS["accent"], linewidth=1.6, marker="D", markersize=4)
        room = (max(places) - min(places)) * 0.06
        axes.set_xlim(min(places) - room, max(places) + room)
        axes.set_xticks(_apart(places))
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
        _value_axis(axes, [value for _, runs in points for value in runs], from_zero=True)
        axes.set_xlabel(x_label, labelpad=2)
        axes.text(-0.02, 1.04, unit, transform=axes.transAxes, color=_INKS["soft"], va="bottom", ha="left")
        return _finish(figure, slug, title, description)


def _dots(axes: Axes, places: Sequence[float], values: Sequence[float]) -> None:
    """Single runs, faint, so that several on one spot show darker."""
    axes.plot(places, values, marker="o", markersize=4, color=_INKS["ink"], alpha=0.4, linestyle="none", mew=0)


def _apart(places: Sequence[float]) -> list[float]:
    """Those of the places whose labels do not run into each other, the last always among them."""
    width = (max(places) - min(places)) * 0.11
    kept: list[float] = []
    for place in sorted(places, reverse=True):
        if not kept or kept[-1] - place >= width:
            kept.append(place)
    return kept


def _value_axis(axes: Axes, values: Sequence[float], *, from_zero: bool) -> None:
    """The vertical axis with thin lines across."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.12 or abs(high) * 0.05 or 1.0
    axes.set_ylim(min(0.0, low) if from_zero else low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.tick_params(axis="y", colors=_INKS["soft"])
    axes.grid(axis="y", color=_INKS["line"], linewidth=0.5)
    axes.set_axisbelow(True)


def history(
    slug: str,
    points: Sequence[HistoryPoint],
    *,
    unit: str,
    name_fingerprint: Callable[[str], str],
    title: str,
    description: str,
) -> str:
    """Past runs in order. A line joins only what ran on the same hardware; a change of it is a vertical line."""
    with _settings():
        figure, axes = _figure(170, left=42, right=14, bottom=22, top=36)
        groups: list[tuple[str, list[int]]] = []
        for index, point in enumerate(points):
            if not groups or groups[-1][0] != point.fingerprint:
                groups.append((point.fingerprint, []))
            groups[-1][1].append(index)
            _dots(axes, [index] * len(point.values), point.values)
        for turn, (fingerprint, indices) in enumerate(groups):
            means = [sum(points[index].values) / len(points[index].values) for index in indices]
            axes.plot(indices, means, color=_INKS["accent"], linewidth=1.6, marker="Ds^v"[turn % 4], markersize=4.5)
            if turn:
                axes.axvline(indices[0] - 0.5, color=_INKS["soft"], linewidth=0.9, linestyle=(0, (3, 2)))
            place = -0.4 if turn == 0 else indices[0] - 0.42
            above = axes.get_xaxis_transform()
            axes.text(place, 1.03, name_fingerprint(fingerprint), transform=above, va="bottom", fontsize=FONT - 1)
        axes.set_xlim(-0.5, len(points) - 0.5)
        every = max(1, math.ceil(len(points) / 5))
        ticks = list(range(0, len(points), every))
        axes.set_xticks(ticks, [points[tick].when for tick in ticks])
        _value_axis(axes, [value for point in points for value in point.values], from_zero=False)
        axes.text(-0.02, 1.17, unit, transform=axes.transAxes, color=_INKS["soft"], va="bottom", ha="left")
        return _finish(figure, slug, title, description)
