"""Tiny benchmarks of pictures in the formats that they are published in, and what is asked and made of them."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from kimi_vl.chat import PicturePart, TextPart
from kimi_vl.eval.task import I, Task, Verdict

STORED = Path(__file__).parents[1] / "evaldata"
TOTALS = json.loads((STORED / "expected_totals.json").read_text())


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (2, 2), colour).save(stream, "PNG")
    return stream.getvalue()


PNGS = {colour: png(colour) for colour in ("red", "green", "blue", "white")}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def base64_of(colour: str) -> str:
    return base64.b64encode(PNGS[colour]).decode()


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], images: Sequence[str]) -> None:
    """Cells of ``images`` are colours, or None."""
    columns = {}
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if name in images:
            cells = [one and {"bytes": PNGS[one], "path": f"{one}.png"} for one in cells]
            columns[name] = pa.array(cells, IMAGE)
        else:
            columns[name] = pa.array(cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_tsv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def write_images(folder: Path, **colours: str) -> None:
    folder.mkdir(parents=True)
    for name, colour in colours.items():
        (folder / f"{name}.png").write_bytes(PNGS[colour])


def asked(task: Task[I], way: str, item: I) -> list[str]:
    """Texts as they are, pictures as [colour]."""
    (message,) = task.ways[way].ask(item)
    assert message.role == "user"
    told = []
    for part in message.parts:
        if isinstance(part, TextPart):
            told.append(part.text)
        else:
            assert isinstance(part, PicturePart)
            data = part.source.read_bytes() if isinstance(part.source, Path) else part.source
            told.append(f"[{next(colour for colour, picture in PNGS.items() if picture == data)}]")
    return told


def mark(task: Task[I], way: str, item: I, said: str, *, lots: int = 0) -> Verdict:
    return task.ways[way].mark(item, said, Random(lots))


def rows_of(name: str) -> list[dict[str, Any]]:
    with gzip.open(STORED / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
