"""What stands before the routes: keys, hosts, sizes, slowness, and addresses that there are not."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.serving import Server, serving, user

HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer first-key\r\nContent-Type: application/json\r\n"
)
HELLO = {"messages": user("Hello"), "max_tokens": 4}
LIMITS = {
    "body_bytes": 20_000,
    "all_body_bytes": 50_000,
    "body_seconds": 1.5,
    "header_seconds": 1.5,
    "connections": 12,
    "messages": 3,
    "tools": 2,
    "schema_bytes": 500,
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With keys and tight limits."""
    options = [f"--limit={name}={value}" for name, value in LIMITS.items()]
    keys = {"KIMI_VL_API_KEYS": "first-key second-key"}
    with serving(tmp_path_factory.mktemp("guarded"), *options, **keys) as running:
        yield running


def key(value: str = "first-key") -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=10)


def ask(server: Server, **more: object) -> httpx2.Response:
    return server.post("/v1/chat/completions", {**HELLO, **more}, headers=key())


@pytest.mark.parametrize(
    "headers", [key(), key("second-key"), {"x-api-key": "first-key"}, {"authorization": "bearer first-key"}]
)
def test_whoever_has_a_key_comes_in(guarded: Server, headers: dict[str, str]) -> None:
    assert guarded.post("/v1/chat/completions", HELLO, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, key("third-key"), key("first-key2"), {"Authorization": "Basic Zmlyc3Q="}, key("first-ke\u00ff")]
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1/nothing"])
def test_nobody_else_does(guarded: Server, headers: dict[str, str], path: str) -> None:
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    response = httpx2.get(guarded.url + path, headers=encoded)
    assert response.status_code == 401
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert "first" not in response.text


def test_health_and_metrics_need_no_key(guarded: Server) -> None:
    for path in ("/health", "/ready", "/metrics", "/", "/openapi.json"):
        assert guarded.get(path).status_code == 200


def test_a_page_elsewhere_cannot_reach_a_server_without_a_key(server: Server) -> None:
    """A name that a stranger's page resolves to this machine (DNS rebinding), and forms that need no leave."""
    refused = server.get("/v1/models", headers={"Host": "evil.example"})
    assert refused.status_code == 403
    assert "evil.example" in refused.json()["error"]["message"]
    for host in ("localhost:1", "127.0.0.1", "[::1]:80"):
        assert server.get("/v1/models", headers={"Host": host}).status_code == 200
    body = json.dumps(HELLO)
    plain = httpx2.post(f"{server.url}/v1/chat/completions", content=body, headers={"Content-Type": "text/plain"})
    assert plain.status_code == 400
    assert "application/json" in plain.json()["error"]["message"]
    answered = httpx2.post(f"{server.url}/v1/chat/completions", json=HELLO, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answered.headers


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is empty"),
        (b"{", "the body is not JSON"),
        (b"[1, 2]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"\xff\xfe{}", "not JSON|parsing the body"),
        (b'{"messages": ' + b"[" * 8000 + b"]" * 8000 + b"}", "parsing the body|messages"),
        (b'{"temperature": NaN, "messages": [{"role": "user", "content": "Hi"}]}', "finite number"),
        (b'{"messages": [{"role": "user", "content": "\\ud800 \\u0000"}], "max_tokens": 1}', ""),
        (b'{"model": "\\ud800", "messages": [{"role": "user", "content": "Hi"}]}', "there is no model"),
    ],
)
def test_bodies_that_are_none(guarded: Server, body: bytes, says: str) -> None:
    headers = {"Content-Type": "application/json", **key()}
    response = httpx2.post(f"{guarded.url}/v1/chat/completions", content=body, headers=headers, timeout=30)
    assert response.status_code == (400 if says and "model" not in says else 404 if says else 200), response.text
    if says:
        message = response.json()["error"]["message"]
        assert any(each in message for each in says.split("|")), message


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/nothing", 404),
        ("DELETE", "/v1/models", 405),
        ("GET", "/a", 404),
    ],
)
def test_addresses_that_there_are_not(guarded: Server, method: str, path: str, status: int) -> None:
    response = httpx2.request(method, guarded.url + path, headers=key())
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_refused_and_the_client_hears_why(guarded: Server, chunked: bool) -> None:
    data = b" " * 5_000_000

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(data), 10_000):
            yield data[start : start + 10_000]

    headers = {"Content-Type": "application/json", **key()}
    content = pieces() if chunked else data
    response = httpx2.post(f"{guarded.url}/v1/chat/completions", content=content, headers=headers, timeout=30)
    assert response.status_code == 413
    assert "over the limit of 20000" in response.json()["error"]["message"]
    assert ask(guarded).status_code == 200


def test_an_endless_body_is_cut_off(guarded: Server) -> None:
    """(F3)"""
    with connect(guarded) as stream:
        stream.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 30:
                stream.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert time.monotonic() - began < 15


def test_a_body_that_drips_is_given_up(guarded: Server) -> None:
    """(F3)"""
    head = HEAD + b"Content-Length: 1000\r\n\r\n"
    with connect(guarded) as stream:
        stream.sendall(head)
        began = time.monotonic()
        answer = b""
        stream.settimeout(0.2)
        while b"body took more than 1.5 s" not in answer and time.monotonic() - began < 12:
            with suppress(TimeoutError):
                answer += stream.recv(10_000)
            with suppress(OSError):
                stream.sendall(b" ")
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_first_lines_that_drip_are_given_up(guarded: Server) -> None:
    with connect(guarded) as stream:
        stream.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n")
        began = time.monotonic()
        closed = False
        while not closed and time.monotonic() - began < 10:
            try:
                stream.sendall(b"X: y\r\n")
                stream.settimeout(0.2)
                closed = stream.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
        assert closed
        assert 1.0 < time.monotonic() - began < 5


def test_bodies_together_have_a_limit(guarded: Server) -> None:
    """Those who hold back the end of theirs take room, others are told to come back, and all is well afterwards."""
    head = HEAD + b"Content-Length: 19000\r\n\r\n"
    streams = [connect(guarded) for _ in range(2)]
    for stream in streams:
        stream.sendall(head + b" " * 10_000)
    time.sleep(0.3)
    refused = ask(guarded, user="x" * 15_000)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    for stream in streams:
        stream.close()
    time.sleep(0.3)
    assert ask(guarded, user="x" * 15_000).status_code == 200


def test_connections_have_a_limit_and_come_back(guarded: Server) -> None:
    streams = [connect(guarded) for _ in range(30)]
    time.sleep(0.3)
    open_ones = 0
    for stream in streams:
        stream.settimeout(0.05)
        try:
            open_ones += stream.recv(1) != b""
        except TimeoutError:
            open_ones += 1
        except OSError:
            pass
    assert 1 <= open_ones <= 12
    for stream in streams:
        stream.close()
    time.sleep(0.3)
    assert ask(guarded).status_code == 200


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"messages": [{"role": "user", "content": "a"}] * 4}, "messages has 4 entries, over the limit of 3"),
        ({"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(3)]}, "tools has 3 entries"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 600}}]},
            "tools has 7.. bytes|tools has 6.. bytes",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"title": "x" * 600}}}},
            "response_format.json_schema.schema has 6.. bytes",
        ),
    ],
)
def test_numbers_have_limits_with_errors_of_their_own(guarded: Server, more: dict[str, object], says: str) -> None:
    response = ask(guarded, **more)
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert re.search(says, message), message


def test_nothing_private_is_logged(guarded: Server) -> None:
    secret = "a-secret-of-mine"
    ask(guarded, messages=user(secret))
    ask(guarded, messages=user(secret, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{secret}"}}))
    ask(guarded, messages=user({"type": secret}))
    guarded.get(f"/v1/models?{secret}", headers=key(secret))
    guarded.get(f"/{secret}")
    assert secret not in guarded.log.read_text()


def test_many_clients_at_the_door_do_not_block_it(guarded: Server) -> None:
    """Eight that say nothing, and one that asks."""
    streams = [connect(guarded) for _ in range(8)]
    answered: list[int] = []
    thread = threading.Thread(target=lambda: answered.append(ask(guarded).status_code))
    thread.start()
    thread.join(10)
    assert answered == [200]
    for stream in streams:
        stream.close()
