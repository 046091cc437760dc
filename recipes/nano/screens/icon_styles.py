"""More styles of the icons that made pages show: a style -> its drawings of whatever lucide has a name for.

Comes in: unpacked packages of icon collections. Goes out: `Drawing` records, several of a name where a style has it
filled, bold or in outline. Made pages show one style in training and another held out; that a lock is a lock in any is
learned from these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache

from recipes.nano.fonts import Split
from recipes.nano.packages import npm
from recipes.nano.pictures import Drawing, package, svg_of
from recipes.nano.screens.icons import LUCIDE, NAMES, called, drawing, icon_names

STYLES: tuple[str, ...] = ("bi", "carbon", "ion", "material-symbols", "mdi", "ph", "ri", "tabler", "uil")
HELDOUT_STYLE = "breeze"  # as screens have it

# What people call it, where a collection calls it otherwise: what its files are called.
_TABLE = """
search: magnify magnifying-glass
settings: setting gear cog
trash: delete trash-can trash-alt delete-bin
save: content-save device-floppy floppy floppy-disk
home: house
copy: content-copy file-copy
scissors: cut content-cut
paste: content-paste
undo: arrow-counterclockwise arrow-u-up-left arrow-back-up arrow-go-back
redo: arrow-u-up-right arrow-forward-up arrow-go-forward
refresh: arrows-clockwise arrow-repeat renew sync
plus: add plus-lg
minus: dash dash-lg subtract remove
close: x x-lg times multiply
check: checkmark check-lg done
arrow left: arrow-back
arrow right: arrow-forward
arrow up: arrow-upward
arrow down: arrow-downward
play: player-play play-arrow
pause: player-pause
stop: player-stop
skip forward: skip-end player-skip-forward skip-next play-skip-forward
skip back: skip-start player-skip-back skip-previous play-skip-back step-backward
zoom in: magnifying-glass-plus magnify-plus search-plus
zoom out: magnifying-glass-minus magnify-minus search-minus
full screen: fullscreen maximize corners-out
lock: lock-closed locked
unlock: lock-open unlocked lock-unlock
pencil: edit create
bold: type-bold text-bold text-b format-bold
italic: type-italic text-italic format-italic
underline: type-underline text-underline format-underline
strike: strikethrough type-strikethrough text-strikethrough format-strikethrough
align left: text-left text-align-left format-align-left
align center: text-center text-align-center format-align-center
align right: text-right text-align-right format-align-right
image: photo picture
user: person account
users: people group account-multiple users-alt
mail: envelope email
send: paper-plane paper-plane-tilt
attachment: paperclip attach attach-file
clock: time schedule
filter: funnel
list: list-ul list-bullets list-check format-list-bulleted
grid: layout-grid grid-view squares-four apps
heart: favorite
eye: view visibility
hidden: eye-off eye-slash view-off visibility-off
camera: photo-camera
microphone: mic
sound: volume volume-up volume-high speaker-high
mute: volume-off volume-mute volume-x speaker-slash
information: info info-circle
help: question question-circle help-circle question-mark
warning: alert exclamation-triangle alert-triangle
wireless: wifi
phone: call telephone
menu: hamburger bars
more: dots-three-vertical dots-vertical three-dots-vertical more-vert overflow-menu-vertical ellipsis-v
tag: label pricetag
share: share-social share-network
log out: logout sign-out signout box-arrow-right
power: power-settings-new
pin: push-pin pushpin
globe: world earth public
chart: bar-chart chart-bar stats-chart chart-column
paint: brush paint-brush paintbrush
rotate: rotate-right rotate-cw rotate-clockwise arrow-clockwise
"""
_KNOWN_AS: dict[str, str] = {
    file.replace("-", " "): name
    for name, files in (row.split(":") for row in _TABLE.strip().splitlines())
    for file in files.split()
}
# How a collection marks another form of the same icon.
_FORM = re.compile(r"[ ](fill|filled|outline|outlined|bold|line|solid|sharp|rounded|light|duotone|alt)$")


def icon_drawings(style: str) -> list[Drawing]:
    """All that lucide has a name for, black."""
    if style in (LUCIDE, HELDOUT_STYLE):
        split: Split = "train" if style == LUCIDE else "heldout"
        names = dict.fromkeys(called(name, split) for name in icon_names(split))
        return [Drawing(name, style, drawing(name, split, "#000000")) for name in names]
    collection = json.loads((npm(package(style)) / "icons.json").read_text(encoding="utf-8"))
    icons = collection["icons"]
    return [Drawing(name, style, svg_of(icons[file], collection)) for file, name in _named(icons)]


def _named(files: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for file in files:
        if name := _name(file.replace("-", " ")):
            yield file, name


@cache
def _known() -> frozenset[str]:
    return frozenset(icon_names("train"))


def _name(said: str) -> str | None:
    """What an icon is called here, whatever its form; None where lucide has none of the name."""
    while True:
        if name := _KNOWN_AS.get(said):
            return name
        if said in _known():
            return called(said, "train")
        if not (form := _FORM.search(said)):
            return None
        said = said[: form.start()]


def is_common(name: str) -> bool:
    """Whether it is among those that held-out pages show, in another style."""
    return name in NAMES
