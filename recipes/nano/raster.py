"""SVG drawings -> arrays on disk, once: `.data/nano/emoji/STYLE.npy` and `STYLE.json`; also clip art and icons.

Comes in: names and SVG text (pictures.py). Goes out: `Album`, read by scenes.py through the page cache, so
that a sample costs one row and not a decoded file.
"""

import io
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from recipes.nano.packages import DATA
from recipes.nano.pictures import HELDOUT_STYLE, Drawing, cliparts, concepts, emoji
from recipes.nano.screens.icon_styles import HELDOUT_STYLE as HELDOUT_ICONS
from recipes.nano.screens.icon_styles import icon_drawings
from recipes.nano.screens.icons import LUCIDE
from recipes.nano.sets import here

EMOJI_SIDE = 96
ICON_SIDE = 48
CLIPART_SIDE = 112
CLIPART = "clipart"


@dataclass(frozen=True)
class Album:
    """The pictures of one style with their names, row by row."""

    pixels: npt.NDArray[np.uint8]  # (N, side, side, 4): RGBA, not premultiplied
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def picture(self, row: int) -> Image.Image:
        """One picture, RGBA."""
        return Image.fromarray(np.ascontiguousarray(self.pixels[row]), "RGBA")


def draw(svg: str, side: int) -> Image.Image | None:
    """The drawing in the middle of a transparent square; None if it cannot be drawn or shows nothing."""
    # Imported here: whoever only reads albums needs no rasteriser.
    import resvg_py

    try:
        # Sizes in points or millimetres mean nothing to the rasteriser without a resolution.
        png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * side, dpi=96, skip_system_fonts=True)
    except ValueError:
        return None
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if max(image.size) > 8 * min(image.size):
        return None
    box = image.getchannel("A").getbbox()
    if box is None or (box[2] - box[0]) * (box[3] - box[1]) < 64:
        return None
    # Drawn twice as large, so that the margin around clip art can go without blurring it.
    image = image.crop(box)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def rasterise(style: str, drawings: Sequence[Drawing], side: int) -> None:
    """Write one album; drawings that fail are left out."""
    place = DATA / "emoji"
    if (place / f"{style}.npy").exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(partial(draw, side=side), [d.svg for d in drawings], chunksize=16)
        kept = [(d, image) for d, image in zip(drawings, drawn, strict=True) if image is not None]
    pixels = np.stack([np.asarray(image) for _, image in kept])
    rows = [{"style": style, "name": d.name, "group": d.group, "tags": d.tags} for d, _ in kept]
    (place / f"{style}.json").write_text(json.dumps(rows))
    part = place / f"{style}.part.npy"
    np.save(part, pixels)
    part.rename(place / f"{style}.npy")
    print(f"  {style}: {len(kept)} of {len(drawings)} drawn at {side} px", flush=True)


def rasterise_emoji() -> None:
    """Each style's concepts, in Unicode's order."""
    for style in (*here().styles, HELDOUT_STYLE):
        rasterise(style, emoji_drawings(style), EMOJI_SIDE)


def emoji_drawings(style: str) -> list[Drawing]:
    """All of a style, in Unicode's order."""
    svgs = emoji(style)
    return [Drawing(c.name, c.group, svgs[at], c.tags) for at, c in concepts().items() if at in svgs]


def rasterise_icons() -> None:
    """Each style of icons, as far as training has names for them."""
    for style in icon_styles_here():
        rasterise(style, icon_drawings(style), ICON_SIDE)


def icon_styles_here() -> tuple[str, ...]:
    """Those of training, and the one that is held out."""
    return (LUCIDE, *here().icon_styles, HELDOUT_ICONS)


def rasterise_clipart() -> None:
    """The named clip arts."""
    rasterise(CLIPART, cliparts(), CLIPART_SIDE)


@cache
def album(style: str) -> Album:
    """The album of a style, its pixels left on disk until they are read."""
    path = DATA / "emoji" / f"{style}.npy"
    if not path.exists():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: run python -m recipes.nano.fetch")
    rows = json.loads(path.with_suffix(".json").read_text())
    names, groups = (tuple(str(row[what]) for row in rows) for what in ("name", "group"))
    return Album(np.load(path, mmap_mode="r"), names, groups)
