"""What the dashboards are built of: queries, panels and boards that look and read alike."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    AxisPlacement,
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import Dashboard as DashboardModel
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Grafana does not put a name into provisioned files by itself, so the datasource has one fixed uid. The role grafana
# makes the datasource with the same uid (a unit test compares the two).
DATASOURCE_UID = "ai-idp-prometheus"
DATASOURCE = DataSourceRef(type_val="prometheus", uid=DATASOURCE_UID)
TAG = "ai-idp"
COLUMNS = 24

# Latencies have no value, not the value 0, while nobody asks anything.
NO_REQUEST = "no request in this range"

type Panel = timeseries.Panel | stat.Panel | bargauge.Panel | statetimeline.Panel | table.Panel | heatmap.Panel


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL, with the dashboard's variables in it.
        legend: how a series is named, with labels as ``{{label}}``.
        hardware: why no machine without certain hardware has the data; empty where every lab has it.
    """

    expr: str
    legend: str = ""
    hardware: str = ""


@dataclass(frozen=True)
class Steps:
    """Colours from a value on: green below ``warn``, orange from there, red from ``bad``; the other way round where
    low values are the bad ones."""

    warn: float
    bad: float

    def build(self) -> dashboard.ThresholdsConfig:
        """Return what Grafana makes of them."""
        if self.warn <= self.bad:
            steps = [Threshold(None, "green"), Threshold(self.warn, "orange"), Threshold(self.bad, "red")]
        else:
            steps = [Threshold(None, "red"), Threshold(self.bad, "orange"), Threshold(self.warn, "green")]
        return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


PLAIN = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(None, "blue")])


@dataclass(frozen=True)
class Row:
    """Panels below one heading."""

    title: str
    panels: Sequence["Described"]


@dataclass(frozen=True)
class Described:
    """A panel and what it asks, which the panel's own builder does not tell."""

    panel: Panel
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Board:
    """One dashboard.

    Attributes:
        name: name of its file, and the end of its uid.
        requires: job of Prometheus without which none of the dashboard makes sense yet; empty where there is none.
    """

    name: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[dashboard.QueryVariable] = ()
    annotations: Sequence[dashboard.AnnotationQuery] = ()
    requires: str = ""
    tags: Sequence[str] = field(default=(TAG,))

    @property
    def uid(self) -> str:
        """The uid by which links and the home page find it."""
        return f"ai-idp-{self.name}"

    def build(self) -> DashboardModel:
        """Lay the panels out, number them and return the dashboard."""
        builder = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags(list(self.tags))
            .readonly()
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .time("now-1h", "now")
            .refresh("30s")
            .timezone("browser")
            .link(
                dashboard.DashboardLink("AI-IDP dashboards")
                .type(DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .as_dropdown(True)
                .keep_time(True)
                .include_vars(False)
            )
        )
        for variable in self.variables:
            builder.with_variable(variable)
        for annotation in self.annotations:
            builder.annotation(annotation)
        for row in self.rows:
            builder.with_row(dashboard.Row(row.title))
            for described in row.panels:
                builder.with_panel(described.panel)
        model = builder.build()
        for number, panel in enumerate(model.panels or [], start=1):
            panel.id_val = number
        return model

    def render(self) -> str:
        """Return the dashboard as the JSON that is committed."""
        # A provisioned dashboard has no number of its own: Grafana gives it one.
        document: dict[str, Any] = {"id": None} | json.loads(json.dumps(self.build(), cls=JSONEncoder))
        return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def hardware_only(self) -> dict[str, str]:
        """Queries that need hardware, with the reason."""
        return {
            query.expr: query.hardware
            for row in self.rows
            for described in row.panels
            for query in described.queries
            if query.hardware
        }


def host_variable(query: str, label: str = "Host") -> dashboard.QueryVariable:
    """The variable $host: all hosts of a query, every one chosen at first."""
    return variable("host", label, query)


def variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable with several values, read from Prometheus whenever the time range changes."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def annotation(name: str, expr: str, title: str, color: str = "orange") -> dashboard.AnnotationQuery:
    """A mark over the time in which an expression has a value above 0."""
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .hide(False)
        .icon_color(color)
        .expr(expr)
        .title_format(title)
        .step("60s")
    )


def _targets(queries: Sequence[Query], *, instant: bool = False, format_val: PromQueryFormat | None = None) -> Any:
    made = []
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().datasource(DATASOURCE).expr(query.expr).ref_id(chr(ord("A") + number))
        target = target.instant() if instant else target.range()
        if query.legend:
            target = target.legend_format(query.legend)
        if format_val:
            target = target.format(format_val)
        made.append(target)
    return made


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    height: int = 8,
    low: float | None = 0,
    high: float | None = None,
    steps: Steps | None = None,
    stacked: bool = False,
    no_value: str = "",
) -> Described:
    """Series over time.

    Args:
        unit: Grafana's name of the unit.
        low, high: fixed ends of the axis.
        steps: limits that are drawn.
        stacked: show parts of a whole.
        no_value: what is said where there is no value.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .targets(_targets(queries))
        .draw_style(GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(40 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .axis_placement(AxisPlacement.AUTO)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if steps:
        panel = panel.thresholds(steps.build()).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        )
    if no_value:
        panel = panel.no_value(no_value)
    return Described(panel, queries)


def number(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 4,
    height: int = 4,
    decimals: int | None = None,
    steps: Steps | None = None,
    words: dict[str, tuple[str, str]] | None = None,
    no_value: str = "",
) -> Described:
    """The last value, large.

    Args:
        words: text and colour shown in place of a value.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .targets(_targets(queries))
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE if words else BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(steps.build() if steps else PLAIN)
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    if words:
        panel = panel.mappings([_words(words)])
    if no_value:
        panel = panel.no_value(no_value)
    return Described(panel, queries)


def bars(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    height: int = 8,
    low: float = 0,
    high: float | None = None,
    steps: Steps | None = None,
) -> Described:
    """The last value of each series as a bar."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .targets(_targets(queries, instant=True))
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(steps.build() if steps else PLAIN)
        .min(low)
    )
    if high is not None:
        panel = panel.max(high)
    return Described(panel, queries)


def states(
    title: str,
    description: str,
    *queries: Query,
    words: dict[str, tuple[str, str]],
    width: int = 12,
    height: int = 8,
) -> Described:
    """Which state each series was in, over time."""
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit("none")
        .span(width)
        .height(height)
        .targets(_targets(queries))
        .mappings([_words(words)])
        .show_value(VisibilityMode.NEVER)
        .row_height(0.8)
        .merge_values(True)
        .line_width(0)
        .fill_opacity(80)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(False)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.SINGLE).sort(SortOrder.NONE))
    )
    return Described(panel, queries)


def listing(
    title: str,
    description: str,
    unit: str,
    query: Query,
    columns: dict[str, str],
    *,
    value: str = "Value",
    width: int = 12,
    height: int = 8,
    no_value: str = "",
) -> Described:
    """A table with one line for each series.

    Args:
        columns: heading of each label that is shown, in order.
        value: heading of the value; empty hides it.
    """
    order = [*columns, *(["Value"] if value else [])]
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .targets(_targets([query], instant=True, format_val=PromQueryFormat.TABLE))
        .with_transformation(DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": order}}))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "indexByName": {name: place for place, name in enumerate(order)},
                    "renameByName": columns | ({"Value": value} if value else {}),
                },
            )
        )
    )
    if no_value:
        panel = panel.no_value(no_value)
    return Described(panel, (query,))


def heat(title: str, description: str, unit: str, query: Query, *, width: int = 12, height: int = 8) -> Described:
    """How often each bucket of a histogram was hit, over time."""
    panel = (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .targets(_targets([query], format_val=PromQueryFormat.HEATMAP))
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(AxisPlacement.LEFT))
        .cell_gap(1)
    )
    return Described(panel, (query,))


def _words(words: dict[str, tuple[str, str]]) -> ValueMap:
    return ValueMap(
        options={
            value: ValueMappingResult(text=text, color=color, index=place)
            for place, (value, (text, color)) in enumerate(words.items())
        }
    )


UP_OR_DOWN = {"0": ("down", "red"), "1": ("up", "green")}


def quantiles(
    bucket: str, selector: str, *, by: str = "host", which: Sequence[float] = (0.5, 0.95, 0.99)
) -> tuple[Query, ...]:
    """Quantiles of a histogram over the requests of the last interval.

    Args:
        bucket: name of the histogram's buckets.
        selector: labels that choose the series.
        by: label that tells the series apart.
        which: quantiles, 0.5 being the median.
    """
    return tuple(
        Query(
            f"histogram_quantile({quantile}, sum by (le, {by}) (rate({bucket}{{{selector}}}[$__rate_interval])))",
            f"{{{{{by}}}}} p{quantile * 100:g}",
        )
        for quantile in which
    )
