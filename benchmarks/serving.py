"""Servers under load with pictures: ours, and llama-server if one is given, in one run on the same sizes.

    python benchmarks/serving.py                                       ours alone, nano
    python benchmarks/serving.py --llama-server FILE                   beside it, of nano's widths with random weights
    python benchmarks/serving.py --ours FOLDER --decoder GGUF --tower GGUF --llama-server FILE      full size

Two measurements, each in turn for all contenders. Closed loop: so many clients ask one after the other, which gives the
throughput. Open loop: requests come at given rates whether or not earlier ones were answered, as they do in life, which
gives times to the first token and per token, and the share of errors. Each request shows a picture that no other had,
a page of text from a file that was made beforehand, and asks for an answer of fixed length. Nothing else should run
beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from peers import building
from PIL import Image, ImageDraw

from kimi_vl.checkpoint import read_config
from kimi_vl.config import nano
from kimi_vl.hub import NANO
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.tokenizer import RESERVED, Tokenizer

_HERE = Path(__file__).parent / "peers"
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Contender:
    """A server that is ready; ``fixed`` makes its answers as long as they may be."""

    name: str
    url: str
    fixed: dict[str, Any]


@dataclass
class Told:
    """What became of one request; times in seconds."""

    asked: float
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    error: str = ""


@dataclass
class Load:
    """What became of all of a measurement."""

    seconds: float
    told: list[Told] = field(default_factory=list)

    @property
    def good(self) -> list[Told]:
        return [each for each in self.told if not each.error]

    def row(self) -> dict[str, float]:
        first = [each.first - each.asked for each in self.good] or [float("nan")]
        per_token = [(t.last - t.first) / (t.tokens - 1) for t in self.good if t.tokens > 1] or [float("nan")]
        row = {
            "requests/s": len(self.good) / self.seconds,
            "tokens/s": sum(each.tokens for each in self.good) / self.seconds,
            "errors": 1 - len(self.good) / max(1, len(self.told)),
        }
        for name, values in (("first token", first), ("per token", per_token)):
            for share in (50, 95, 99):
                row[f"{name} p{share}"] = float(np.percentile(values, share))
        return row


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if options.llama_server is not None and options.decoder is None:
            options.ours, options.decoder, options.tower = _small(options.work)
        if options.ours != "nano":
            options.ours = _with_vocabulary(Path(options.ours), options.work)
        contenders = [stack.enter_context(_ours(options))]
        if options.llama_server is not None:
            contenders.append(stack.enter_context(_llama_server(options)))
        rows: list[dict[str, Any]] = []
        for contender in contenders:
            asyncio.run(_closed(contender, options, clients=2, requests=1))  # warm
        for turn in range(options.rounds):
            for contender in contenders:
                load = asyncio.run(_closed(contender, options, clients=options.clients, requests=options.requests))
                rows.append(
                    {"who": contender.name, "load": f"{options.clients} clients, round {turn + 1}", **load.row()}
                )
                _show(rows[-1], load)
        for rate in options.rates:
            for contender in contenders:
                load = asyncio.run(_open(contender, options, rate))
                rows.append({"who": contender.name, "load": f"{rate:g} requests/s", **load.row()})
                _show(rows[-1], load)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")
        _compare(rows, options.clients)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kimi-vl-serving")
    parser.add_argument("--ours", default="nano", help="a model in 4 bits, or nano")
    parser.add_argument("--llama-server", type=Path, metavar="FILE")
    parser.add_argument("--decoder", type=Path, help="GGUF; of nano's sizes if not given")
    parser.add_argument("--tower", type=Path, help="GGUF of the picture side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=6, help="of each client")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="*", default=[1, 2, 4, 8], help="requests a second")
    parser.add_argument("--seconds", type=float, default=20, help="that requests come in at each rate")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--context", type=int, default=32768, help="tokens that all answers share")
    parser.add_argument("--size", default="448x448", help="of pictures")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


# -- contenders -------------------------------------------------------------------------------------


@contextmanager
def _ours(options: argparse.Namespace) -> Iterator[Contender]:
    command = [sys.executable, "-m", "kimi_vl.cli", "serve", str(options.ours), "--port", "0", "--name", "model"]
    command += ["--threads", str(options.threads), "--answers", str(max(16, options.clients))]
    command += ["--context", str(options.context)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split(" answers at ")[1].strip()
        try:
            ends = KimiVLProcessor.from_pretrained(options.ours).tokenizer.end_ids
            yield Contender("kimi-vl", address, {"logit_bias": {str(token): -100 for token in ends}})
        finally:
            process.terminate()


@contextmanager
def _llama_server(options: argparse.Namespace) -> Iterator[Contender]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [options.llama_server, "-m", options.decoder, "--mmproj", options.tower]
    command += ["--port", str(port), "-t", str(options.threads), "-tb", str(options.threads)]
    command += ["-np", str(options.clients), "-c", str(options.context), "--image-max-tokens", "4096"]
    command += ["-fa", "on", "--no-warmup", "--no-mmproj-offload"]
    log = (options.work / "llama-server.log").open("w")
    with subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 300
            while not _is_healthy(url):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"llama-server did not begin; see {log.name}")
                time.sleep(0.2)
            yield Contender("llama-server", url, {"ignore_eos": True, "cache_prompt": True})
        finally:
            process.terminate()


def _small(work: Path) -> tuple[Path, Path, Path]:
    """Random weights in 4 bits for both: nano's widths, but 27 layers, by which llama.cpp knows this architecture.

    The table of positions is square, as llama.cpp has it.
    """
    config = nano()
    side = replace(config.vision_config, init_pos_emb_height=16, init_pos_emb_width=16)
    text = replace(config.text_config, num_hidden_layers=27)
    path = work / "small.json"
    path.write_text(json.dumps(replace(config, vision_config=side, text_config=text).to_dict()))
    python = building.environment(work)
    targets = {part: work / f"small-{part}.gguf" for part in ("decoder", "pictures")}
    for part, target in targets.items():
        if not target.exists():
            subprocess.run([python, _HERE / "random_gguf.py", part, path, target], check=True)
    ours = work / "small-4bit"
    if not ours.exists():
        source = work / "small"
        kimi_vl = [sys.executable, "-m", "kimi_vl.cli"]
        subprocess.run([*kimi_vl, "init", source, "--config", path, "--force"], check=True)
        KimiVLProcessor.from_pretrained("nano").save_pretrained(source)
        subprocess.run([*kimi_vl, "quantize", source, ours], check=True)
    return ours, targets["decoder"], targets["pictures"]


def _with_vocabulary(folder: Path, work: Path) -> Path:
    """The folder, or one that links to its files beside nano's vocabulary, filled up with words to the model's size."""
    size = read_config(folder).text_config.vocab_size
    nano_tokens = (NANO / "tiktoken.model").read_bytes()
    known = nano_tokens.count(b"\n")
    if (folder / "tiktoken.model").exists() and Tokenizer.from_pretrained(folder).vocab_size == size:
        return folder
    words = (
        base64.b64encode(f" w{rank:06}".encode()) + f" {rank}\n".encode() for rank in range(known, size - RESERVED)
    )
    with_words = work / f"{folder.name}-with-words"
    shutil.rmtree(with_words, ignore_errors=True)
    Tokenizer(nano_tokens + b"".join(words)).save_pretrained(with_words)
    for file in folder.iterdir():
        if not (with_words / file.name).exists():
            (with_words / file.name).symlink_to(file.resolve())
    return with_words


def _is_healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.HTTPError:
        return False


# -- load -------------------------------------------------------------------------------------------


async def _closed(contender: Contender, options: argparse.Namespace, *, clients: int, requests: int) -> Load:
    pictures = iter([_picture(options.size) for _ in range(clients * requests)])
    began = time.monotonic()
    load = Load(0.0)
    async with _client(clients) as client:

        async def one() -> None:
            for _ in range(requests):
                load.told.append(await _ask(client, contender, options, next(pictures)))

        await asyncio.gather(*(one() for _ in range(clients)))
    load.seconds = time.monotonic() - began
    return load


async def _open(contender: Contender, options: argparse.Namespace, rate: float) -> Load:
    """Requests at moments that are drawn beforehand (Poisson), whatever became of those before."""
    r = random.Random(f"{rate}")
    moments = list(itertools.accumulate(r.expovariate(rate) for _ in range(int(rate * options.seconds))))
    pictures = [_picture(options.size) for _ in moments]
    began = time.monotonic()
    async with _client(10_000) as client:

        async def at(moment: float, picture: dict[str, Any]) -> Told:
            await asyncio.sleep(began + moment - time.monotonic())
            return await _ask(client, contender, options, picture)

        told = await asyncio.gather(*map(at, moments, pictures))
    return Load(time.monotonic() - began, list(told))


def _client(connections: int) -> httpx2.AsyncClient:
    # each request has a connection of its own: a server may close one that waits, just when the next request comes
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=0)
    return httpx2.AsyncClient(timeout=600, limits=limits)


async def _ask(
    client: httpx2.AsyncClient, contender: Contender, options: argparse.Namespace, picture: dict[str, Any]
) -> Told:
    body = {
        "model": "model",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 1.0,
        "seed": 1,
        "max_tokens": options.tokens,
        "messages": [{"role": "user", "content": [picture, {"type": "text", "text": "Read the text."}]}],
        **contender.fixed,
    }
    told = Told(time.monotonic())
    try:
        async with client.stream("POST", f"{contender.url}/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                told.error = f"{response.status_code} {(await response.aread())[:200]!r}"
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    told.error = str(event["error"])
                now = time.monotonic()
                if any(choice.get("delta", {}).get("content") for choice in event.get("choices", [])):
                    told.first = told.first or now
                    told.last = now
                if event.get("usage"):
                    told.tokens = event["usage"]["completion_tokens"]
    except httpx2.HTTPError as error:
        told.error = repr(error)
    if not told.error and not told.first:
        told.error = "no token came"
    return told


def _picture(size: str) -> dict[str, Any]:
    """A page of text that no request had before, as a JPEG file."""
    width, height = map(int, size.split("x"))
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    number = next(_NUMBERS)
    for line in range(height // 16):
        draw.text((8, 16 * line), f"page {number}, line {line}: {random.Random(number + line).random():.12f}", "black")
    stream = io.BytesIO()
    page.save(stream, "JPEG", quality=90)
    url = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


# -- what is shown ----------------------------------------------------------------------------------


def _show(row: dict[str, Any], load: Load) -> None:
    times = " ".join(f"{name} {1000 * value:.0f} ms," for name, value in row.items() if " p" in name)
    print(
        f"{row['who']:13} {row['load']:22} {row['requests/s']:.3g} requests/s, {row['tokens/s']:.3g} tokens/s, "
        f"errors {100 * row['errors']:.1f} %, {times.rstrip(',')}",
        flush=True,
    )
    for error in sorted({each.error for each in load.told if each.error}):
        print(f"    {error}", flush=True)


def _compare(rows: list[dict[str, Any]], clients: int) -> None:
    """Medians over the rounds."""
    names = list(dict.fromkeys(row["who"] for row in rows))
    closed = [row for row in rows if "clients" in row["load"]]
    medians = {name: float(np.median([row["tokens/s"] for row in closed if row["who"] == name])) for name in names}
    for name in names[1:]:
        ratio = medians[names[0]] / medians[name]
        print(f"throughput with {clients} clients: {names[0]} has {ratio:.2f} times that of {name}")


if __name__ == "__main__":
    main()
