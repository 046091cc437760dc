"""Many clients at once for a while, some of them hostile: wrong answers, starved requests, memory, and overload.

    python benchmarks/soak.py                   64 clients for 600 seconds, one request in ten hostile; then overload

Every honest request was asked alone before; under load the answer must be the same to the letter. A hostile one is a
picture that is none or nearly, a bomb, an address that is private, a body that is no JSON, a client that leaves, or a
body that never ends. Afterwards four times as many ask as may come in, and then one alone. Ends with an error if a line
of what is expected does not hold. Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx2
import numpy as np
import psutil
from PIL import Image

_CHAT = "/v1/chat/completions"
_RUNNING, _WAITING = 16, 64


@dataclass
class Seen:
    """All that came of it."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    hostile: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    resident: list[int] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "kimi_vl.cli",
        "serve",
        "--port",
        "0",
        "--deterministic",
        "--answers",
        str(_RUNNING),
    ]
    command += [
        "--limit",
        f"waiting_answers={_WAITING}",
        "--limit",
        "body_seconds=3",
        "--threads",
        str(options.threads),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split(" answers at ")[1].strip()
        try:
            holds = asyncio.run(_all(address, psutil.Process(process.pid), options))
        finally:
            process.terminate()
    sys.exit(0 if holds else 1)


async def _all(address: str, process: psutil.Process, options: argparse.Namespace) -> bool:
    seen = Seen()
    limits = httpx2.Limits(max_connections=2000, max_keepalive_connections=200)
    async with httpx2.AsyncClient(base_url=address, timeout=300, limits=limits) as client:
        requests = list(_honest())
        alone = [await _said(client, request) for request in requests]
        print(f"{len(requests)} requests asked alone", flush=True)
        until = time.monotonic() + options.seconds
        watching = asyncio.create_task(_watch(process, seen))
        await asyncio.gather(*(_client(client, n, until, requests, alone, seen) for n in range(options.clients)))
        watching.cancel()
        holds = _judge(seen, await _rest(client))
        return await _overload(client, requests[0], alone[0]) and holds


# -- requests ---------------------------------------------------------------------------------------


def _honest() -> list[dict[str, Any]]:
    """Of every kind: texts, pictures, several of them, drawn and not, streamed and not."""
    requests: list[dict[str, Any]] = []
    for number in range(40):
        r = random.Random(number)
        pictures = [_shown(_file(number * 10 + n, r.randint(28, 500), r.randint(28, 300))) for n in range(number % 3)]
        text = {"type": "text", "text": r.choice(["Read the text.", "What is this?", "Go on: one two three"])}
        requests.append(
            {
                "messages": [{"role": "user", "content": [*pictures, text]}],
                "temperature": r.choice([0, 0, 0.7, 1.2]),
                "seed": number,
                "max_tokens": r.randint(8, 48),
                "stream": number % 2 == 0,
            }
        )
    return requests


def _file(seed: int, width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height)).save(stream, "PNG")
    return stream.getvalue()


def _shown(data: bytes) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url}}


@cache
def _bomb() -> dict[str, Any]:
    """A small file of 144 million pixels."""
    stream = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(stream, "PNG")
    return _shown(stream.getvalue())


async def _said(client: httpx2.AsyncClient, request: dict[str, Any]) -> str:
    """The answer, or what the refusal is."""
    try:
        response = await client.post(_CHAT, json=request)
    except httpx2.HTTPError as error:
        return f"failed: {error!r}"
    if response.status_code != 200:
        return f"refused: {response.status_code} {response.text[:200]}"
    if not request.get("stream"):
        return str(response.json()["choices"][0]["message"]["content"])
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event).get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def _be_hostile(client: httpx2.AsyncClient, number: int) -> str:
    """Returns the kind and what came of it."""
    r = random.Random(number)
    data = bytearray(_file(number, 60, 60))
    data[r.randrange(len(data))] ^= 255
    pictures = {
        "broken picture": _shown(bytes(data)),
        "cut picture": _shown(bytes(data)[: len(data) // 2]),
        "bomb": _bomb(),
        "private address": {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}},
        "local file": {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        "PDF that is none": {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0xLjcK"}},
    }
    kind = r.choice([*pictures, "no JSON", "leaves", "never ends", "too much"])
    if kind in pictures:
        turn = {"role": "user", "content": [pictures[kind]]}
        response = await client.post(_CHAT, json={"messages": [turn], "max_tokens": 4})
    elif kind == "no JSON":
        response = await client.post(_CHAT, content=r.randbytes(200), headers={"Content-Type": "application/json"})
    elif kind == "too much":
        wishes = {"messages": [{"role": "user", "content": "x"}], "n": 16, "max_tokens": 10**9}
        response = await client.post(_CHAT, json=wishes)
    elif kind == "leaves":
        body = {
            "messages": [{"role": "user", "content": "Go on."}],
            "max_tokens": 4000,
            "temperature": 1,
            "stream": True,
        }
        try:
            async with client.stream(
                "POST", _CHAT, json={**body, "logit_bias": {"3841": -100, "3842": -100}}
            ) as stream:
                await anext(stream.aiter_bytes())
        except httpx2.HTTPError as error:
            return f"{kind}: {type(error).__name__}"
        return f"{kind}: left"
    else:

        async def drip() -> Any:
            for _ in range(100):
                yield b" "
                await asyncio.sleep(0.1)

        try:
            response = await client.post(_CHAT, content=drip(), headers={"Content-Type": "application/json"})
        except httpx2.HTTPError as error:
            return f"{kind}: {type(error).__name__}"
    return f"{kind}: {response.status_code}"


async def _client(
    client: httpx2.AsyncClient,
    number: int,
    until: float,
    requests: list[dict[str, Any]],
    alone: list[str],
    seen: Seen,
) -> None:
    r = random.Random(f"client {number}")
    while time.monotonic() < until:
        if r.random() < 0.1:
            seen.hostile[await _be_hostile(client, r.randrange(10**6))] += 1
            continue
        which = r.randrange(len(requests))
        began = time.monotonic()
        said = await _said(client, requests[which])
        seen.seconds.append(time.monotonic() - began)
        if said != alone[which]:
            seen.wrong.append(f"request {which}: {said!r} instead of {alone[which]!r}")


# -- what is expected -------------------------------------------------------------------------------


async def _watch(process: psutil.Process, seen: Seen) -> None:
    while True:
        family = [process, *process.children(recursive=True)]
        seen.resident.append(sum(each.memory_info().rss for each in family if each.is_running()))
        await asyncio.sleep(2)


async def _rest(client: httpx2.AsyncClient) -> dict[str, float]:
    """The server's own figures once nobody asks any more."""
    await asyncio.sleep(5)
    lines = (await client.get("/metrics")).text.splitlines()
    found = (line.split(" ") for line in lines if line.startswith("kimi_vl_") and "{" not in line)
    return {name.removeprefix("kimi_vl_"): float(value) for name, value in found}


def _judge(seen: Seen, metrics: dict[str, float]) -> bool:
    p50, p99 = np.percentile(seen.seconds, [50, 99])
    half = len(seen.resident) // 2
    growth = max(seen.resident[half:]) - max(seen.resident[:half])
    expected = {
        f"{len(seen.seconds)} honest answers, {len(seen.wrong)} wrong": not seen.wrong,
        f"p50 {p50:.2f} s, p99 {p99:.2f} s: {p99 / p50:.1f} times": p99 <= 8 * p50,
        f"resident at most {max(seen.resident) / 1e6:.0f} MB, {growth / 1e6:+.0f} MB in the second half": growth < 50e6,
        f"{metrics['answers']:.0f} answers left over": metrics["answers"] == 0,
        f"{metrics['cache_pages_free']:.0f} of {metrics['cache_pages']:.0f} pages free": (
            metrics["cache_pages_free"] == metrics["cache_pages"]
        ),
        f"{sum(seen.hostile.values())} hostile": not any(kind.split(": ")[1].startswith("5") for kind in seen.hostile),
    }
    for line, holds in expected.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {line}")
    for kind, count in sorted(seen.hostile.items()):
        print(f"    {kind} ({count})")
    for line in seen.wrong[:10]:
        print(f"    {line}")
    return all(expected.values())


async def _overload(client: httpx2.AsyncClient, request: dict[str, Any], alone: str) -> bool:
    """Four times as many as may come in at once, for a while; then whether one alone is answered as usual."""
    statuses: Counter[int] = Counter()
    until = time.monotonic() + 20
    body = {"messages": [{"role": "user", "content": "Go on."}], "max_tokens": 200, "temperature": 1}

    async def ask(number: int) -> None:
        while time.monotonic() < until:
            response = await client.post(_CHAT, json={**body, "seed": number})
            statuses[response.status_code] += 1
            if response.status_code == 429:
                await asyncio.sleep(min(1.0, float(response.headers["Retry-After"])))

    await asyncio.gather(*(ask(number) for number in range(4 * (_RUNNING + _WAITING))))
    began = time.monotonic()
    while await _said(client, request) != alone:
        await asyncio.sleep(0.1)
    seconds = time.monotonic() - began
    holds = set(statuses) == {200, 429} and seconds < 10
    print(
        f"{'holds' if holds else 'DOES NOT HOLD'}: overload, by status {dict(statuses)}; as usual after {seconds:.1f} s"
    )
    return holds


if __name__ == "__main__":
    main()
