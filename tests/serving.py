"""A real server for tests: a process of its own, spoken to over a socket."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2
from PIL import Image

LINE_FILE = Path(__file__).parents[1] / "docs" / "line.png"
_START = 60.0  # seconds


@dataclass
class Server:
    """One that is ready."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def post(self, path: str, body: Any, **more: Any) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, timeout=120, **more)

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=30, **more)

    def chat(self, *content: Any, **more: Any) -> httpx2.Response:
        """One turn."""
        return self.post("/v1/chat/completions", {"messages": user(*content), **more})

    def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """All that a stream tells, but for its end mark."""
        with httpx2.stream("POST", self.url + path, json={**body, "stream": True}, timeout=120) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        found = re.findall(rf"^kimi_vl_{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics").text, re.MULTILINE)
        return sum(map(float, found))

    def wait_for_rest(self, seconds: float = 20.0) -> None:
        """Until nothing is answered, and all of the cache is free."""
        until = time.monotonic() + seconds
        while not (self.metric("answers") == 0 and self.metric("cache_pages_free") == self.metric("cache_pages")):
            assert time.monotonic() < until, self.get("/metrics").text
            time.sleep(0.05)


@contextmanager
def serving(folder: Path, *options: str, **environment: str) -> Iterator[Server]:
    """``kimi-vl serve`` with options, at a port of its own; one thread, for others test beside."""
    log = folder / f"server-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "kimi_vl.cli", "serve", "--port", "0", "--threads", "1", *options]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stream, text=True, env={**os.environ, **environment}
        )
    try:
        assert process.stdout is not None
        yield Server(_address(process.stdout, log), process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()


def _address(stdout: IO[str], log: Path) -> str:
    line = stdout.readline()
    assert " answers at http://" in line, log.read_text()
    return line.split(" answers at ")[1].strip()


def user(*content: Any) -> list[dict[str, Any]]:
    """One turn, of texts and parts."""
    return [{"role": "user", "content": list(content)}]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def shown(data: bytes, **wishes: Any) -> dict[str, Any]:
    """A picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": data_url(data), **wishes}}


LINE_TOKENS = 48  # as nano sees it
LINE_PART = shown(LINE_FILE.read_bytes())
