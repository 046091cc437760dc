"""Pictures by URL: from public addresses only, with bounds on size, time and redirects."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kimi_vl.serve import fetch
from kimi_vl.serve.fetch import Fetcher, is_public, normalised, shortened

BODY = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        path, _, query = self.path.partition("?")
        with suppress(BrokenPipeError, ConnectionResetError):
            match path:
                case "/picture":
                    self.reply(200, body=BODY)
                case "/to":
                    self.reply(302, {"Location": query})
                case "/large":
                    self.reply(200, {"Content-Length": str(10**12)})
                case "/endless":
                    self.reply(200, {"Connection": "close"}, length=False)
                    while True:
                        self.wfile.write(BODY)
                case "/slow":
                    self.reply(200, {"Content-Length": "1000"})
                    while True:
                        self.wfile.write(b"x")
                        time.sleep(0.1)
                case _:
                    self.reply(404)

    def reply(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", *, length: bool = True
    ) -> None:
        headers = headers or {}
        if length:
            headers = {"Content-Length": str(len(body)), **headers}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def server(host: str = "127.0.0.1") -> Iterator[tuple[str, list[str]]]:
    handler = type("OneHandler", (Handler,), {"seen": []})
    with ThreadingHTTPServer((host, 0), handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://{host}:{running.server_port}", handler.seen  # type: ignore[attr-defined]
        running.shutdown()


def get(url: str, *, private: bool = True, most_bytes: int = 50_000, seconds: float = 5.0) -> bytes:
    return asyncio.run(Fetcher(most_bytes, seconds, 3, private).get(url))


def test_a_picture_comes_as_it_is() -> None:
    with server() as (base, _):
        assert get(f"{base}/picture?a=b#c") == BODY
        assert get(f"{base}/to?/picture") == BODY
        assert get(f"{base}/to?/to?/to?/picture") == BODY


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/nothing", r"127\.0\.0\.1:\d+/nothing: answered with status 404"),
        ("/large", "has 1000000000000 bytes, over the limit of 50000"),
        ("/endless", "has more bytes than the limit of 50000"),
        ("/to?/to?/to?/to?/picture", "leads on more than 3 times"),
        ("/to?ftp://example.com/a", "must begin with http:// or https://"),
        ("/to?file:///etc/passwd", "must begin with http:// or https://"),
        ("/to?http://127.0.0.1:1/", "cannot be fetched"),
        ("/to?http://no-such-host.invalid/", "its host is not known"),
    ],
)
def test_what_cannot_be_fetched_says_why_and_names_the_url(path: str, says: str) -> None:
    with server() as (base, _), pytest.raises(ValueError, match=says) as caught:
        get(base + path)
    assert str(caught.value).startswith(base + path.split("?")[0])


def test_a_slow_server_is_left() -> None:
    with server() as (base, _):
        began = time.monotonic()
        with pytest.raises(ValueError, match=r"takes more than 0\.7 s"):
            get(f"{base}/slow", seconds=0.7)
        assert time.monotonic() - began < 3


def test_private_addresses_are_not_even_spoken_to() -> None:
    with server() as (base, seen):
        port = base.rsplit(":", 1)[1]
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"):
            with pytest.raises(ValueError, match=r"private address|not known"):
                get(f"http://{host}:{port}/picture", private=False)
        assert seen == []


def test_a_redirect_is_looked_at_as_the_first_address_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1")
    with server("127.0.0.2") as (inner, seen), server() as (base, _):
        assert get(f"{base}/picture", private=False) == BODY
        with pytest.raises(ValueError, match="private address"):
            get(f"{base}/to?{inner}/picture", private=False)
        assert seen == []


def test_a_name_is_asked_for_once_and_its_answer_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers otherwise the second time leads nowhere."""
    asked = []

    async def getaddrinfo(self: object, host: str, port: int, **options: object) -> list[object]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(2, 1, 6, "", (address, port))]

    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    with server() as (base, seen):
        port = base.rsplit(":", 1)[1]
        assert get(f"http://pictures.example:{port}/picture", private=False) == BODY
    assert asked == ["pictures.example"]
    assert seen == ["/picture"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "192.0.0.8", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fec0::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1",
        "64:ff9b:1::808:808", "nonsense",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("HTTPS://Example.com/a b?q=ä#f", "https://example.com/a%20b?q=%C3%A4"),
        ("http://bücher.example", "http://xn--bcher-kva.example/"),
        ("http://[2001:db8::1]:80/%20", "http://[2001:db8::1]:80/%20"),
    ],
)
def test_urls_become_ascii(url: str, wanted: str) -> None:
    assert normalised(url) == wanted


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://a/b", "must begin with"),
        ("/etc/passwd", "must begin with"),
        ("http:///a", "names no host"),
        ("http://user:secret@a/b", "no user name or password"),
        ("http://a:99999/", "[Pp]ort"),
        ("http://[::1/", "IPv6"),
        ("http://a/" + "b" * 5000, "longer than 4096"),
        ("http://" + "a" * 70 + ".example/", "label"),
    ],
)
def test_urls_that_are_none(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        normalised(url)
    with pytest.raises(ValueError, match=says) as caught:
        get(url)
    assert "secret" not in str(caught.value)


def test_what_is_shown_of_a_url_has_no_secrets() -> None:
    assert shortened("https://me:pw@a.example/b?token=x#y") == "https://a.example/b"
    assert len(shortened("https://a.example/" + "b" * 1000)) == 201
