"""A laid-out chart -> a picture of it by matplotlib, as most charts of other people are drawn.

Comes in: `Chart`, `Look` and `Layout`. Goes out: an RGB picture. Knows nothing of views' sources or questions. The
room is given and not sought (constrained or tight layouts draw everything twice).
"""

from random import Random
from typing import Any

from PIL import Image

from recipes.nano.figures.chart_pieces import Chart, Layout, Look
from recipes.nano.paper import Colour

# A power of two, so that pixels / DOTS * DOTS is a whole number again.
DOTS = 64
POINTS = 72 / DOTS
"""How many typographic points a pixel is."""


def plot_by_matplotlib(random: Random, look: Look, chart: Chart, layout: Layout, size: tuple[int, int]) -> Image.Image:
    """Bars, rows, lines, an area or dots."""
    # Imported here: only the workers that draw need the library.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    view, frame, rows = chart.view, layout.frame, chart.kind == "rows"
    ink, fills = _rgb(look.ink), [_rgb(fill) for fill in look.fills]
    small = FontProperties(fname=str(look.face), size=look.small * POINTS)
    figure = Figure(figsize=(size[0] / DOTS, size[1] / DOTS), dpi=DOTS, facecolor=_rgb(look.paper))
    canvas = FigureCanvasAgg(figure)
    width, height = frame.right - frame.left, frame.bottom - frame.top
    place = (frame.left / size[0], 1 - frame.bottom / size[1], width / size[0], height / size[1])
    axes = figure.add_axes(place, facecolor=_rgb(look.plot))
    axes.set_axisbelow(True)
    thick = look.share / len(view.series)
    for number, (name, line) in enumerate(zip(view.series, view.values, strict=True)):
        fill, places = fills[number], list(range(len(line)))
        shifted = [at + (number - (len(view.series) - 1) / 2) * thick for at in places]
        edge: dict[str, Any] = {"edgecolor": ink, "linewidth": 0.8} if look.edge else {}
        if chart.kind == "bars":
            axes.bar(shifted, line, thick, color=fill, label=name, **edge)
        elif rows:
            axes.barh(shifted, line, thick, color=fill, label=name, **edge)
        elif chart.kind == "dots":
            axes.plot(places, line, "o", color=fill, label=name, markersize=7, clip_on=False)
        else:
            if chart.kind == "area":
                axes.fill_between(places, line, color=fill, alpha=0.4)
            marker = random.choice(("", "o", "s", "^"))
            style: dict[str, Any] = {"marker": marker, "markersize": 5, "linewidth": look.width, "clip_on": False}
            axes.plot(places, line, color=fill, label=name, **style)
        if chart.labelled:
            for at, value in zip(shifted if chart.kind in ("bars", "rows") else places, line, strict=True):
                point, aside = ((value, at), (4, 0)) if rows else ((at, value), (0, 3))
                axes.annotate(
                    look.number(value),
                    point,
                    aside,
                    textcoords="offset pixels",
                    ha="left" if rows else "center",
                    va="center" if rows else "bottom",
                    fontproperties=small,
                    color=ink,
                    parse_math=False,
                )
    ends = (-0.5, len(view.categories) - 0.5)
    said: dict[str, Any] = {"fontproperties": small, "color": ink, "parse_math": False}
    names, where = list(view.categories), list(range(len(view.categories)))
    if rows:
        axes.set(xlim=(frame.scale[0], frame.scale[-1]), ylim=ends[::-1])
        axes.set_yticks(where, names, **said)
        axes.set_xticks(frame.scale, layout.numbers, **said)
    else:
        axes.set(xlim=ends, ylim=(frame.scale[0], frame.scale[-1]))
        axes.set_yticks(frame.scale, layout.numbers, **said)
        slant: dict[str, Any] = {"rotation": layout.angle}
        if 0 < layout.angle < 90:
            slant |= {"ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(where, names, **said, **slant)
    axes.tick_params(length=3 if look.ticks else 0, pad=3, color=ink)
    if layout.below:
        axes.set_xlabel(layout.below, labelpad=3, **said)
    if layout.beside:
        axes.set_ylabel(layout.beside, labelpad=3, **said)
    if look.grid != "none":
        axes.grid(
            axis="both" if look.grid == "both" else "x" if rows else "y",
            color=_rgb(look.faint),
            linestyle="--" if look.dashed else "-",
            linewidth=0.9,
        )
    for side, spine in axes.spines.items():
        spine.set_color(ink)
        spine.set_visible(look.frame == "box" or side == "bottom" or (side == "left" and look.frame == "corner"))
    if chart.title:
        large = FontProperties(fname=str(look.face), size=look.large * POINTS)
        figure.text(0.5, 1 - 5 / size[1], chart.title, ha="center", va="top", fontproperties=large, color=ink).set(
            parse_math=False
        )
    if len(view.series) > 1:
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=len(view.series),
            prop=small,
            labelcolor=ink,
            frameon=False,
            borderpad=0.2,
            handlelength=1.2,
            columnspacing=1.2,
        )
    canvas.draw()
    return Image.frombuffer("RGBA", size, canvas.buffer_rgba()).convert("RGB")


def _rgb(colour: Colour) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255
