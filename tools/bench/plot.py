"""The bench's plot: seconds of each playbook by side, and seconds by number of light hosts."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench.figures import BEFORE, STOCK, THIS

_SOFT, _LINE = "#57606a", "#d0d7de"
# Told apart by lightness too: a reader may see no colours.
_COLOURS = {THIS: "#0b5fa5", STOCK: "#8fbbe0", BEFORE: "#c9b48a"}
_LABELS = {THIS: "this tree", STOCK: "this tree, stock settings", BEFORE: "former tree"}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.linewidth": 0.7,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "xtick.color": _SOFT,
    "ytick.major.size": 0,
    "text.parse_math": False,
}


def drawn(result: Mapping[str, Any]) -> str:
    """The plot of a result file as SVG. Equal input gives equal bytes; what was not measured is written as that."""
    targets: Mapping[str, Any] = result["targets"]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=(9.6, 1.6 + 0.62 * max(4, len(targets))), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        _draw_targets(left, targets)
        _draw_edge(right, result["edge"])
        figure.suptitle(
            f"No-change runs, {result['date'][:10]}, commit {result['commit'][:7]}, "
            f"{result['machine']['cores']} cores of {result['machine']['cpu_model']}",
            fontsize=10,
            color=_SOFT,
        )
        stream = io.StringIO()
        FigureCanvasSVG(figure)
        figure.savefig(stream, format="svg", facecolor="white", metadata={"Date": None})
    return re.sub(r"[ \t]+\n", "\n", stream.getvalue())


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)


def _draw_targets(axes: Axes, targets: Mapping[str, Any]) -> None:
    """A bar for each median, with its runs as dots."""
    height = 0.26
    for row, cells in enumerate(targets.values()):
        for place, (side, colour) in enumerate(_COLOURS.items()):
            middle = row + (place - 1) * height
            cell = cells.get(side, {"status": "not_measured"})
            if cell["status"] != "measured":
                axes.text(0, middle, " not measured", va="center", fontsize=8, color=_SOFT)
                continue
            seconds = [run["wall_s"] for run in cell["runs"]]
            axes.barh(middle, cell["median"]["wall_s"], height=height * 0.9, color=colour)
            axes.plot(seconds, [middle] * len(seconds), marker="o", markersize=3, color="black", alpha=0.5, ls="none")
            axes.text(max(seconds), middle, f"  {cell['median']['wall_s']:.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(targets)), list(targets))
    axes.set_ylim(len(targets) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.margins(x=0.1)
    axes.set_xlabel("seconds, less is better")
    axes.grid(axis="x", color=_LINE, linewidth=0.5)
    # Drawn here and nowhere, so that a side without a figure has its colour explained too.
    for side, colour in _COLOURS.items():
        axes.barh([0], [0], color=colour, label=_LABELS[side])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3, fontsize=8, frameon=False)
    _bare(axes)


def _draw_edge(axes: Axes, edge: Mapping[str, Any]) -> None:
    """The line through the medians, each run a dot, and what an added host takes."""
    measured = {int(count): cell for count, cell in edge["seconds"].items() if cell["status"] == "measured"}
    axes.set_xlabel("light hosts at the edge")
    axes.set_ylabel("seconds")
    axes.grid(axis="y", color=_LINE, linewidth=0.5)
    _bare(axes)
    if not measured:
        axes.text(0.5, 0.5, "not measured", ha="center", color=_SOFT, transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for count, cell in measured.items():
        seconds = [run["wall_s"] for run in cell["runs"]]
        axes.plot([count] * len(seconds), seconds, marker="o", markersize=3, color="black", alpha=0.5, ls="none")
        share = edge["share_of_first"].get(str(count))
        if isinstance(share, float):
            axes.annotate(
                f"an added host: {share:.0%} of the first",
                (count, cell["median"]["wall_s"]),
                # Where the drawing has room: below the line, and at its end above it.
                xytext=(0, 8) if count == max(measured) else (8, -8),
                textcoords="offset points",
                ha="right" if count == max(measured) else "left",
                fontsize=8,
                color=_SOFT,
            )
    medians = [cell["median"]["wall_s"] for cell in measured.values()]
    axes.plot(list(measured), medians, color=_COLOURS[THIS], linewidth=1.6, marker="D", markersize=4)
    axes.set_xticks(list(measured))
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
