"""A run as one HTML page that needs nothing else: the figures, and every item with its pictures, answer and verdict.

In: a run's folder, the items that it asked, and perhaps another run of the same task to set it against. Out: a file.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from kimi_vl.chat import Message, PicturePart, TextPart
from kimi_vl.eval.asking import encoded
from kimi_vl.eval.figures import Figure, Summary, summary
from kimi_vl.eval.record import Record, Settings
from kimi_vl.eval.run import Chosen, Peers
from kimi_vl.eval.task import I
from kimi_vl.media import load_picture

_SIDE = 480  # pixels: small enough that thousands fit a page, large enough to see what was asked


@dataclass(frozen=True)
class _Shown:
    """An item as the page has it; pictures are data URLs. ``before`` is what another run has of it."""

    id: str
    groups: Sequence[str]
    asked: Sequence[str]
    pictures: Sequence[str]
    wanted: str
    raw: str
    read: str | None
    score: float
    fixed: float
    by_lot: bool
    finish: str
    refused: str | None
    seconds: float
    before: Mapping[str, Any] | None


def write_report(
    chosen: Chosen[I],
    settings: Settings,
    records: Sequence[Record],
    target: Path,
    *,
    peers: Peers,
    before: Sequence[Record] = (),
) -> None:
    """``target`` is replaced only by a whole page. Raises: ``ValueError`` where it cannot lie there."""
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"{target}: the page needs the name of a file in a folder that exists")
    others = {one.id: one for one in before}
    shown = [_shown(chosen, one, others.get(one.id)) for one in records]
    template = files("kimi_vl.eval").joinpath("report.html").read_text(encoding="utf-8")
    parts = {
        "TITLE": escape(f"{settings.task}: {settings.model}"),
        "SETTINGS": _facts(settings),
        "FIGURES": _figures(summary(chosen, records, peers)),
        # "<" may not close the script that the items stand in
        "ITEMS": json.dumps([asdict(one) for one in shown], ensure_ascii=False).replace("<", "\\u003c"),
    }
    for name, part in parts.items():
        template = template.replace(f"<!--{name}-->", part)
    whole = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    whole.write_text(template, encoding="utf-8")
    whole.replace(target)


def _shown(chosen: Chosen[I], one: Record, other: Record | None) -> _Shown:
    item = chosen.items[one.number]
    messages: Sequence[Message] = ()
    why = one.refused
    try:
        messages = chosen.way.ask(item)
    except (OSError, ValueError) as error:
        why = why or str(error)
    before = None if other is None else {"raw": other.raw, "read": other.read, "score": other.score}
    return _Shown(
        id=one.id,
        groups=list(chosen.task.groups(item)),
        asked=[part.text for message in messages for part in message.parts if isinstance(part, TextPart)],
        pictures=[_small(part) for message in messages for part in message.parts if isinstance(part, PicturePart)],
        wanted=chosen.task.wanted(item),
        raw=one.raw,
        read=one.read,
        score=one.score,
        fixed=one.fixed,
        by_lot=one.by_lot,
        finish=one.finish,
        refused=why,
        seconds=round(one.seconds, 3),
        before=before,
    )


def _small(part: PicturePart) -> str:
    """Nothing where a picture cannot be opened: that is what the page then says of it."""
    try:
        image = load_picture(encoded(part.source))
    except (OSError, ValueError):
        return ""
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=60)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _facts(settings: Settings) -> str:
    told = {
        "way": settings.way,
        "asked": settings.endpoint or "this machine",
        "items": f"{settings.count:,} of {settings.of:,}",
        "seed": settings.seed,
        "temperature": settings.temperature,
        "most tokens": settings.max_new_tokens,
        "thought": settings.thought,
        "data": settings.data[:12],
        **settings.versions,
    }
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in told.items())


def _figures(told: Summary) -> str:
    rows = "".join(map(_row, (told.total, *told.more, *told.peers, *told.groups)))
    counted = {"not read": told.unread, "drawn by lot": told.by_lot, "refused": told.refused, "cut off": told.cut}
    said = ", ".join(f"{number:,} {what}" for what, number in counted.items())
    head = "<tr><th>group</th><th>score</th><th>95 %</th><th>without the rule's faults</th><th>items</th></tr>"
    return f"<table>{head}{rows}</table><p>{said}; {told.seconds:.2f} s an item</p>"


def _row(one: Figure) -> str:
    cells = (f"{one.value:.1%}", f"{one.low:.1%} to {one.high:.1%}", f"{one.fixed:.1%}", f"{one.count:,}")
    return f"<tr><th>{escape(one.name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
