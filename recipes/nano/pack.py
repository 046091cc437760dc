"""All that training and its exams draw on, in one file for a machine that fetches nothing.

    python -m recipes.nano.pack FILE      what lies in .data/nano, without packages
    python -m recipes.nano.pack -x FILE   and there again

Emoji go as SVG and are drawn on arrival, clip art, whose SVG is large, as WebP: a tenth of the albums' size.
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
from recipes.nano.raster import CLIPART, EMOJI_SIDE, album, draw, emoji_drawings
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
        for style in _styles():
            svgs = [drawing.svg for drawing in emoji_drawings(style)]
            _add(file, f"emoji/{style}.svgs", json.dumps(svgs).encode())
        if here().clipart:
            pictures = album(CLIPART)
            for row in range(len(pictures.names)):
                _add(file, f"emoji/{CLIPART}/{row}.webp", _webp(pictures.picture(row)))


def _stays(inside: Path) -> bool:
    return inside.parts[0] == "fonts" and inside.stem.partition("_")[2] in _RARE_CUTS


def _styles() -> tuple[str, ...]:
    return (*here().styles, HELDOUT_STYLE)


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
        for style in _styles():
            svgs = json.loads((DATA / f"emoji/{style}.svgs").read_text())
            drawn = pool.map(partial(draw, side=EMOJI_SIDE), svgs, chunksize=8)
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
