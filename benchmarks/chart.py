"""The chart that README shows: small panels of bars, one drawing for light pages and one for dark ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks import names
from benchmarks.measure import Result, Series
from benchmarks.tables import number


@dataclass(frozen=True)
class Bar:
    """What is drawn: a workload's measure on a model."""

    label: str
    workload: str
    model: str
    measure: str


@dataclass(frozen=True)
class Panel:
    """Bars with one unit."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Theme:
    """Colours, of the text and of each target."""

    name: str
    text: str
    faint: str
    bars: dict[str, str]


PANELS = (
    Panel(
        "tokens a second, demo model",
        (
            Bar("1 stream", "one-stream", names.DEMO, "tokens_per_second"),
            Bar("4 streams", "streams-4", names.DEMO, "tokens_per_second"),
            Bar("16 streams", "streams-16", names.DEMO, "tokens_per_second"),
            Bar("32 streams", "streams-32", names.DEMO, "tokens_per_second"),
        ),
    ),
    Panel(
        "tokens a second, 27 million parameters",
        (
            Bar("1 stream", "one-stream", names.LARGER, "tokens_per_second"),
            Bar("32 streams", "streams-32", names.LARGER, "tokens_per_second"),
        ),
    ),
    Panel(
        f"tokens a second, {names.REAL}",
        (
            Bar("1 stream", "one-stream", names.REAL, "tokens_per_second"),
            Bar("8 streams", "streams-8", names.REAL, "tokens_per_second"),
            Bar("a file written again", "copying", names.REAL, "copy_rate"),
            Bar("text that copies nothing", "copying", names.REAL, "other_rate"),
        ),
    ),
    Panel(
        "tokens a second of JSON, 27 million parameters",
        (
            Bar("free text", "forced", names.LARGER, "plain_rate"),
            Bar("an object of ten properties", "forced", names.LARGER, "object_rate"),
            Bar("4 such objects at once", "forced", names.LARGER, "object_rate_4"),
        ),
    ),
    Panel(
        "ms to the first token, demo model: less is better",
        (
            Bar("new, 1,100 tokens", "chat", names.DEMO, "first_ttft"),
            Bar("next turn of a chat", "chat", names.DEMO, "later_ttft"),
            Bar("next step of an agent", "agent", names.DEMO, "later_ttft"),
            Bar("next turn after a restart", "restart", names.DEMO, "warm_ttft"),
        ),
    ),
    Panel(
        "seconds from the start to the first answer: less is better",
        (Bar("demo model", "start", names.DEMO, "ready_seconds"),),
    ),
    Panel(
        "ms between tokens while 4,000 others come in: less is better",
        (
            Bar("p50", "long-prompt", names.DEMO, "p50_during"),
            Bar("p95", "long-prompt", names.DEMO, "p95_during"),
            Bar("longest", "long-prompt", names.DEMO, "longest_during"),
        ),
    ),
)
DRAWN = (names.OURS, names.PEER, names.IN_PROCESS, names.LLAMA_SERVER)
THEMES = (
    Theme("light", "#1f2328", "#d0d7de", dict(zip(DRAWN, ("#0969da", "#9a6700", "#8c959f", "#8250df"), strict=True))),
    Theme("dark", "#e6edf3", "#3d444d", dict(zip(DRAWN, ("#58a6ff", "#d29922", "#6e7681", "#a371f7"), strict=True))),
)
_KEYS = {
    names.OURS: "Tiles Server",
    names.PEER: names.PEER,
    names.IN_PROCESS: "mlx-lm in process",
    names.LLAMA_SERVER: "llama-server, Q4_K_M",
}
_BAR, _WIDTH = 0.26, 9.0  # of a label's height; inches


def write(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw chart-light and chart-dark, as SVG and PNG each. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [path for theme in THEMES for path in _saved(draw(results, theme), folder / f"chart-{theme.name}")]


def draw(results: Sequence[Result], theme: Theme) -> Figure:
    """Draw all panels for which there is anything to draw."""
    panels = [panel for panel in PANELS if any(_values(results, panel))]
    heights = [0.6 + len(panel.bars) for panel in panels]
    with mpl.rc_context({"font.size": 9, "text.color": theme.text, "svg.hashsalt": "tiles"}):
        figure = Figure(figsize=(_WIDTH, 0.8 + 0.42 * sum(heights)), layout="constrained")
        if panels:
            areas = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
            for area, panel in zip(areas[:, 0], panels, strict=True):
                _draw_panel(area, panel, results, theme)
        handles = [mpl.patches.Patch(color=theme.bars[name], label=_KEYS[name]) for name in DRAWN]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(DRAWN), frameon=False)
    return figure


def _draw_panel(area: Axes, panel: Panel, results: Sequence[Result], theme: Theme) -> None:
    values = list(_values(results, panel))
    most = max(series.high for _, _, series in values)
    seen = [name for name in DRAWN if any(name == whose for _, whose, _ in values)]
    for place, name, series in values:
        at = place + (seen.index(name) - (len(seen) - 1) / 2) * _BAR
        spread = [[series.median - series.low], [series.high - series.median]]
        area.barh(at, series.median, height=_BAR * 0.9, color=theme.bars[name])
        area.errorbar(series.median, at, xerr=spread, color=theme.text, elinewidth=0.7, alpha=0.6)
        area.text(series.high + most * 0.01, at, number(series.median), va="center", fontsize=8, color=theme.text)
    area.set_title(panel.title, loc="left", fontsize=9, color=theme.text)
    area.set_yticks(range(len(panel.bars)), [bar.label for bar in panel.bars])
    area.set_xlim(0, most * 1.1)
    area.set_ylim(len(panel.bars) - 0.5, -0.5)
    area.tick_params(colors=theme.text, length=0)
    area.tick_params(axis="x", labelsize=7)
    area.grid(axis="x", color=theme.faint, linewidth=0.5)
    area.set_axisbelow(True)
    area.set_frame_on(False)


def _values(results: Sequence[Result], panel: Panel) -> Iterator[tuple[int, str, Series]]:
    """The place of each bar, whose it is, and its values."""
    for place, bar in enumerate(panel.bars):
        for result in results:
            if (result.workload, result.model) == (bar.workload, bar.model):
                for name in DRAWN:
                    if series := result.get(name, bar.measure):
                        yield place, name, series


def _saved(figure: Figure, path: Path) -> Iterator[Path]:
    canvases: dict[str, tuple[Any, dict[str, Any]]] = {
        ".svg": (FigureCanvasSVG, {"metadata": {"Date": None}}),
        ".png": (FigureCanvasAgg, {"dpi": 144}),
    }
    for suffix, (canvas, options) in canvases.items():
        target = path.with_suffix(suffix)
        with mpl.rc_context({"svg.hashsalt": "tiles"}):
            canvas(figure)
            figure.savefig(target, transparent=True, **options)
        yield target
