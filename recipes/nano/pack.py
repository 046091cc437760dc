"""All that training and its exams draw on, in one file for a machine that fetches nothing.

    python -m recipes.nano.pack FILE      what lies in .data/nano, without packages
    python -m recipes.nano.pack -x FILE   and there again

Emoji and icons go as SVG and are drawn on arrival, clip art, whose SVG is large, as WebP: a tenth of the albums' size.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.nano.packages import DATA
from recipes.nano.pictures import HELDOUT_STYLE
from recipes.nano.raster import CLIPART, EMOJI_SIDE, ICON_SIDE, album, draw, emoji_drawings, icon_styles_here
from recipes.nano.screens.icon_styles import icon_drawings
from recipes.nano.sets import SETS, DataSet, begin, here

_PARTS = ("chats", "emoji", "fonts", "numbers", "screens", "text")
_SET = "set"
_QUALITY = 70
# Cuts that few lines are set in, for their size.
_RARE_CUTS = ("300-normal", "700-italic")


def pack(target: Path) -> None:
    """Writes the file."""
    with tarfile.open(target, "w:xz") as file:
        _add(file, _SET, here().name.encode())
        for part in _PARTS:
            for path in sorted((DATA / part).rglob("*")):
                inside = path.relative_to(DATA)
                if path.is_file() and path.suffix != ".npy" and not _stays(inside):
                    file.add(path, str(inside))
        for style, side in _sides().items():
            drawings = icon_drawings(style) if side == ICON_SIDE else emoji_drawings(style)
            # In step with the album's names, which know nothing of what could not be drawn.
            svgs = [drawing.svg for drawing in drawings if draw(drawing.svg, side) is not None]
            _add(file, f"emoji/{style}.svgs", json.dumps(svgs).encode())
        if here().clipart:
            pictures = album(CLIPART)
            for row in range(len(pictures.names)):
                _add(file, f"emoji/{CLIPART}/{row}.webp", _webp(pictures.picture(row)))


def _stays(inside: Path) -> bool:
    return inside.parts[0] == "fonts" and inside.stem.partition("_")[2] in _RARE_CUTS


def _sides() -> dict[str, int]:
    """Every album that is drawn on arrival, and how large its drawings are."""
    emoji = (*here().styles, HELDOUT_STYLE)
    return dict.fromkeys(emoji, EMOJI_SIDE) | dict.fromkeys(icon_styles_here(), ICON_SIDE)


def _add(file: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    file.addfile(member, io.BytesIO(data))


def _webp(image: Image.Image) -> bytes:
    packed = io.BytesIO()
    image.save(packed, "WEBP", quality=_QUALITY, alpha_quality=80)
    return packed.getvalue()


def unpack(source: Path) -> None:
    """Puts everything where :func:`pack` found it.

    Raises: ``ValueError`` where the data folder holds another set, or the file names none.
    """
    with tarfile.open(source) as file:
        begin(_packed_set(file))
        file.extractall(DATA, filter="data")
    with ProcessPoolExecutor() as pool:
        for style, side in _sides().items():
            svgs = json.loads((DATA / f"emoji/{style}.svgs").read_text())
            drawn = pool.map(partial(draw, side=side), svgs, chunksize=8)
            np.save(DATA / f"emoji/{style}.npy", np.stack([np.asarray(picture) for picture in drawn]))
    if not here().clipart:
        return
    place = DATA / "emoji" / CLIPART
    count = len(list(place.iterdir()))
    rows = [np.asarray(Image.open(place / f"{row}.webp").convert("RGBA")) for row in range(count)]
    np.save(place.with_suffix(".npy"), np.stack(rows))


def _packed_set(file: tarfile.TarFile) -> DataSet:
    first = file.next()
    named = file.extractfile(first) if first is not None and first.name == _SET else None
    if named is None:
        raise ValueError("the file does not begin with the name of a set: pack the data anew")
    return SETS[named.read().decode()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("-x", "--unpack", action="store_true")
    args = parser.parse_args()
    if args.unpack:
        try:
            unpack(args.file)
        except ValueError as error:
            parser.error(str(error))
    else:
        pack(args.file)
        print(f"{args.file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
