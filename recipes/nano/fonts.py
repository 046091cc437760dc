"""Font families -> TrueType files under `.data/nano/fonts/`, split into training and held-out by family.

Comes in: unpacked npm font packages (WOFF files of the latin subset). Goes out: `Face` records for lines.py.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from PIL import ImageFont

from recipes.nano.packages import DATA
from recipes.nano.text import CHARACTERS

Split = Literal["train", "heldout"]


def _names(text: str) -> list[str]:
    return text.split()


SANS = _names("""
arimo archivo archivo-narrow asap assistant atkinson-hyperlegible b612 barlow barlow-condensed
be-vietnam-pro cabin cantarell carlito catamaran chivo commissioner dejavu-sans didact-gothic dosis
encode-sans epilogue exo-2 figtree fira-sans hanken-grotesk heebo ibm-plex-sans inter josefin-sans jost
kanit karla lato lexend manrope maven-pro merriweather-sans montserrat mukta mulish noto-sans nunito
nunito-sans open-sans oswald outfit plus-jakarta-sans poppins pt-sans pt-sans-narrow questrial quicksand
raleway red-hat-text roboto roboto-condensed rubik sarabun signika sora source-sans-3 space-grotesk
titillium-web urbanist varela-round work-sans yantramanav
""")
SERIF = _names("""
besley bitter caladea cardo cormorant-garamond crimson-pro crimson-text domine eb-garamond faustina
frank-ruhl-libre fraunces gelasio gentium-plus ibm-plex-serif libre-baskerville libre-caslon-text literata
lora martel merriweather newsreader noto-serif old-standard-tt philosopher playfair-display pt-serif
quattrocento roboto-serif roboto-slab rokkitt sorts-mill-goudy source-serif-4 stix-two-text unna zilla-slab
""")
MONO = _names("""
anonymous-pro azeret-mono b612-mono cascadia-code courier-prime dejavu-mono fira-code fira-mono geist-mono
ibm-plex-mono inconsolata jetbrains-mono noto-sans-mono pt-mono red-hat-mono roboto-mono share-tech-mono
source-code-pro space-mono victor-mono
""")
# Only such as draw both letter cases: a face of capitals would make the true text unknowable.
DISPLAY = _names("""
abril-fatface architects-daughter caveat comfortaa comic-neue courgette dancing-script fjalla-one
gloria-hallelujah indie-flower kalam lobster pacifico patrick-hand patua-one righteous shadows-into-light
special-elite
""")
TRAINING_FAMILIES: tuple[str, ...] = tuple(sorted({*SANS, *SERIF, *MONO, *DISPLAY}))

# Ordinary, readable faces, and no close kin of theirs (alegreya-sans, ubuntu-mono, dm-mono, overpass-mono,
# public-sans, …) is trained on either.
HELDOUT_FAMILIES: tuple[str, ...] = (
    "alegreya",
    "cousine",
    "dm-sans",
    "hind",
    "libre-franklin",
    "overpass",
    "spectral",
    "tinos",
    "ubuntu",
    "vollkorn",
)

# Weight and style of the cuts we take, and how often a line is set in each (see `faces`).
CUTS: dict[str, int] = {"400-normal": 10, "700-normal": 4, "400-italic": 3, "300-normal": 1, "700-italic": 1}
# Pictures of writing rather than reading faces: kept rare.
RARE = frozenset(DISPLAY)


@dataclass(frozen=True)
class Face:
    """One font file."""

    family: str
    cut: str
    path: Path


def package(family: str) -> str:
    """The npm package of a family."""
    return f"@fontsource/{family}"


def convert(family: str, unpacked: Path) -> int:
    """Write the cuts of one unpacked package as TrueType; returns how many files there are."""
    out = DATA / "fonts"
    out.mkdir(parents=True, exist_ok=True)
    made = 0
    for cut in CUTS:
        source = unpacked / "files" / f"{family}-latin-{cut}.woff"
        target = out / f"{family}_{cut}.ttf"
        if not target.exists():
            if not source.exists():
                continue
            part = target.with_suffix(".part")
            part.write_bytes(woff_to_sfnt(source.read_bytes()))
            if lacking := missing(part):
                print(f"  {family} {cut} left out: no glyph for {lacking}", flush=True)
                part.unlink()
                continue
            part.rename(target)
        made += 1
    return made


def woff_to_sfnt(woff: bytes) -> bytes:
    """A WOFF 1.0 container -> the TrueType/OpenType file inside (W3C WOFF 1.0, section 4).

    Unpacked once, since FreeType maps a plain file into memory but inflates a WOFF at each opening.
    """
    if woff[:4] != b"wOFF":
        raise ValueError(f"not a WOFF 1.0 file: it starts with {woff[:4]!r}")
    flavour, count = struct.unpack(">4x4s4xH", woff[:14])
    entries = sorted(struct.iter_unpack(">4sIIII", woff[44 : 44 + 20 * count]))
    power = count.bit_length() - 1
    head = struct.pack(">4sHHHH", flavour, count, 16 << power, power, 16 * (count - (1 << power)))
    offset, directory, body = 12 + 16 * count, b"", b""
    for tag, start, packed, plain, checksum in entries:
        table = woff[start : start + packed]
        table = table if packed == plain else zlib.decompress(table)
        directory += struct.pack(">4sIII", tag, checksum, offset + len(body), plain)
        body += table + bytes(-len(table) % 4)
    return head + directory + body


def missing(path: Path) -> str:
    """Those of our characters that a font file has no glyph for."""
    font = ImageFont.truetype(path, 24, layout_engine=ImageFont.Layout.BASIC)

    def drawn(character: str) -> bytes:
        return bytes(font.getmask(character))

    # A private-use code point that no text font fills shows the face's own "no such glyph" box.
    box = drawn("\ue83a")
    return "".join(c for c in CHARACTERS if c != " " and drawn(c) in (b"", box))


@cache
def faces(split: Split) -> tuple[tuple[Face, ...], tuple[int, ...]]:
    """The font files of a split in a fixed order, and the cumulative weights to draw them with."""
    families = TRAINING_FAMILIES if split == "train" else HELDOUT_FAMILIES
    found: list[Face] = []
    total: list[int] = []
    for path in sorted((DATA / "fonts").glob("*.ttf")):
        if (match := re.fullmatch(r"(.+)_(.+)\.ttf", path.name)) and match[1] in families:
            found.append(Face(match[1], match[2], path))
            weight = CUTS[match[2]] * (1 if match[1] in RARE else 3)
            total.append(weight + (total[-1] if total else 0))
    if not found:
        raise FileNotFoundError(f"no {split} fonts in {DATA / 'fonts'}: run python -m recipes.nano.fetch")
    return tuple(found), tuple(total)
