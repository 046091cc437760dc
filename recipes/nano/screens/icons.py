"""Icons for made pages: a name -> its drawing as SVG text, in one of two styles.

Comes in: the unpacked packages lucide-static (training) and breeze-icon-theme (held out). Goes out: SVG that takes
the colour of the pen. No drawing is of both splits; the held-out names are common ones that training knows from the
other style, since nobody can name a sign that he has never been told of.
"""

import re
from functools import cache
from pathlib import Path
from random import Random

from recipes.nano.fonts import Split
from recipes.nano.packages import deb, npm

LUCIDE, BREEZE = "lucide-static", "breeze-icon-theme"

# What people call it: its file in lucide, its file in breeze (among the actions of 22 pixels where no folder is named).
_TABLE = """
search: search edit-find
settings: settings configure
trash: trash-2 edit-delete
save: save document-save
home: house go-home
folder: folder places/22/folder
printer: printer document-print
copy: copy edit-copy
scissors: scissors edit-cut
paste: clipboard-paste edit-paste
undo: undo-2 edit-undo
redo: redo-2 edit-redo
refresh: refresh-cw view-refresh
plus: plus list-add
minus: minus list-remove
close: x window-close
check: check dialog-ok
arrow left: arrow-left go-previous
arrow right: arrow-right go-next
arrow up: arrow-up go-up
arrow down: arrow-down go-down
play: play media-playback-start
pause: pause media-playback-pause
stop: square media-playback-stop
skip forward: skip-forward media-skip-forward
skip back: skip-back media-skip-backward
zoom in: zoom-in zoom-in
zoom out: zoom-out zoom-out
full screen: maximize view-fullscreen
lock: lock object-locked
unlock: lock-open object-unlocked
pencil: pencil document-edit
bold: bold format-text-bold
italic: italic format-text-italic
underline: underline format-text-underline
strike: strikethrough format-text-strikethrough
align left: text-align-start format-justify-left
align center: text-align-center format-justify-center
align right: text-align-end format-justify-right
image: image insert-image
link: link insert-link
user: user user
users: users system-users
mail: mail mail-message
send: send document-send
attachment: paperclip mail-attachment
bookmark: bookmark bookmarks
calendar: calendar view-calendar
clock: clock clock
filter: funnel view-filter
list: list view-list-details
grid: layout-grid view-grid
download: download download
star: star star-shape
heart: heart love
eye: eye view-visible
hidden: eye-off view-hidden
camera: camera devices/22/camera-photo
microphone: mic devices/22/audio-input-microphone
sound: volume-2 status/22/audio-volume-high
mute: volume-x status/22/audio-volume-muted
information: info help-about
help: circle-question-mark help-contents
warning: triangle-alert messagebox_warning
wireless: wifi status/22/network-wireless-connected-100
bluetooth: bluetooth status/22/network-bluetooth
phone: phone call-start
menu: menu application-menu
more: ellipsis-vertical overflow-menu
tag: tag tag
flag: flag flag
key: key-round password-copy
share: share-2 document-share
log out: log-out system-log-out
power: power system-shutdown
pin: pin window-pin
globe: globe globe
chart: chart-column office-chart-bar
table: table table
code: code code-context
paint: paintbrush draw-brush
crop: crop transform-crop
rotate: rotate-cw object-rotate-right
keyboard: keyboard devices/22/input-keyboard
mouse: mouse devices/22/input-mouse
"""
NAMES: dict[str, tuple[str, str]] = {
    name: (files.split()[0], files.split()[1])
    for name, files in (row.split(":") for row in _TABLE.strip().splitlines())
}
_BREEZE_PEN = "#232629"


@cache
def icon_names(split: Split) -> tuple[str, ...]:
    """All that an icon of a split can be called."""
    common = tuple(NAMES)
    if split == "heldout":
        return common
    taken = {lucide for lucide, _ in NAMES.values()}
    others = (path.stem for path in sorted(_lucide().glob("*.svg")))
    named = (stem.replace("-", " ") for stem in others if stem not in taken and not set(stem) & set("0123456789"))
    return (*common, *(name for name in named if len(name) <= 24 and name not in NAMES))


def some_names(random: Random, split: Split, count: int) -> list[str]:
    """Different names for the icons of one page, more of them common ones."""
    names = icon_names(split)
    common = sum(name in NAMES for name in names)
    found: list[str] = []
    while len(found) < count:
        name = names[random.randrange(common)] if random.random() < 0.6 else random.choice(names)
        if name not in found:
            found.append(name)
    return found


def drawing(name: str, split: Split, pen: str) -> str:
    """The SVG text of an icon, drawn in a colour."""
    text = _text(_file(name, split))
    return text.replace(_BREEZE_PEN, pen) if split == "heldout" else text.replace("currentColor", pen)


def called(name: str, split: Split) -> str:
    """What a page calls an icon: of the several names that some drawings have, always the same one."""
    return _first_names(split)[_paths(_file(name, split))]


@cache
def _first_names(split: Split) -> dict[str, str]:
    first: dict[str, str] = {}
    for name in icon_names(split):
        first.setdefault(_paths(_file(name, split)), name)
    return first


def _paths(path: Path) -> str:
    """A drawing less the classes, which hold its name."""
    return re.sub(r'class="[^"]*"', "", _text(path))


@cache
def _text(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


def _file(name: str, split: Split) -> Path:
    if split == "heldout":
        place = NAMES[name][1]
        return _breeze() / f"{place if '/' in place else f'actions/22/{place}'}.svg"
    return _lucide() / f"{NAMES[name][0] if name in NAMES else name.replace(' ', '-')}.svg"


@cache
def _lucide() -> Path:
    return npm(LUCIDE) / "icons"


@cache
def _breeze() -> Path:
    return deb(BREEZE) / "usr/share/icons/breeze"
