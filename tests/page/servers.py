"""Servers of the chat page: real ones that answer with nano, and one that answers by script.

What nano cannot do (Markdown, hostile text, a stream that breaks off where a test wants it) comes from ``Scripted``:
the same page with the same headers, and events that a test wrote.
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sesame"


@dataclass(frozen=True)
class Servers:
    plain: str
    thinking: str  # wants KEY


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kimi_vl.cli", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"answers at (http\S+)", line):
            return f"{found[1]}/"
    raise AssertionError("".join(said))


def metric(server: str, name: str) -> float:
    with urllib.request.urlopen(f"{server}metrics") as response:
        found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


@dataclass(frozen=True)
class Reply:
    """``pieces`` are sent one by one; an iterator may wait between them."""

    pieces: Iterable[bytes]
    status: int = 200
    kind: str = "text/event-stream"


class Scripted(ThreadingHTTPServer):
    """Serves the page as the real server does, and answers with what ``replies`` holds."""

    daemon_threads = True

    def __init__(self, real: str) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        with urllib.request.urlopen(real) as response:
            policy = response.headers["Content-Security-Policy"]
            self.pages = {"/": (response.read(), "text/html", policy)}
        with urllib.request.urlopen(f"{real}v1/models") as response:
            self.pages["/v1/models"] = (response.read(), "application/json", policy)
        self.replies: queue.Queue[Reply] = queue.Queue()
        self.bodies: list[dict[str, Any]] = []
        self.left = threading.Event()  # by a client, before all was sent

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def say(self, text: str, *, thought: str = "", usage: bool = True) -> None:
        self.replies.put(Reply([thinks(thought), says(text), ending(usage=usage)]))

    def refuse(self, status: int, message: str) -> None:
        error = {"message": message, "type": "", "param": None, "code": ""}
        self.replies.put(Reply([json.dumps({"error": error}).encode()], status, "application/json"))


class ScriptedHandler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        body, kind, policy = self.server.pages[self.path]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        reply = self.server.replies.get(timeout=10)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.end_headers()
        try:
            for piece in reply.pieces:
                self.wfile.write(piece)
        except OSError:
            self.server.left.set()

    def log_message(self, format: str, *args: object) -> None:
        pass


def sent(event: dict[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(event)}\n\n".encode()


def says(text: str) -> bytes:
    return sent({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def thinks(text: str) -> bytes:
    return sent({"choices": [{"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}]})


def ending(finish: str = "stop", *, usage: bool = True) -> bytes:
    figures = {
        "prompt_tokens": 1251, "completion_tokens": 42,
        "prompt_tokens_details": {"image_tokens": 1220, "cached_tokens": 31},
        "completion_tokens_details": {"reasoning_tokens": 29},
    }  # fmt: skip
    last = sent({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return last + (sent({"choices": [], "usage": figures}) if usage else b"") + b"data: [DONE]\n\n"


def held_after(first: bytes, until: threading.Event, rest: bytes = b"") -> Iterator[bytes]:
    yield first
    until.wait(10)
    yield rest
