"""Requests that nobody would write by hand: none is the server's failure, none hangs, and every refusal says why.

``KIMI_VL_FUZZ=5000`` asks so many times in each test, 20,000 in all, as for the figures in docs/measured.md.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.engines import noise
from tests.serving import Server, encoded, serving, shown

REQUESTS = int(os.environ.get("KIMI_VL_FUZZ", "150"))
WEEK = settings(max_examples=REQUESTS, suppress_health_check=list(HealthCheck))
PATIENCE = 30.0  # seconds


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With short answers, and none so long that a patient client would give up."""
    with serving(tmp_path_factory.mktemp("fuzzed"), "--limit", "new_tokens=6", "--context", "640") as running:
        yield running
        assert "Traceback" not in running.log.read_text()


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Server]:
    """For pictures of every size."""
    with serving(tmp_path) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def client(target: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=target.url, timeout=PATIENCE) as one:
        yield one


def test_the_document_and_all_that_it_allows(target: Server, tmp_path: Path) -> None:
    """Schemathesis on the OpenAPI document."""
    tool = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("schemathesis is not installed")
    operations = 6  # that have a body
    examples = max(4, REQUESTS // (5 * operations)) if REQUESTS < 1000 else REQUESTS // operations
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [tool, "run", f"{target.url}/openapi.json", "--max-examples", str(examples), "--checks", checks]
    command += ["--request-timeout", str(PATIENCE), "--seed", "1", "--no-color", "--phases", "coverage,fuzzing"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:]
    found = re.search(r"(\d+) generated", ran.stdout)
    assert found is not None
    assert int(found[1]) > 100
    print(found[0])


# -- messages, nearly right -------------------------------------------------------------------------

GOOD = encoded(noise(1, 40, 30))
TEXTS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["", "Hi", "<|media_pad|>", "<|im_end|>", "◁think▷", "<tool_call>{}", "\ud800", "\x00", "a" * 3000]
    ),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def mutated(data: bytes, seed: int) -> bytes:
    """A file with some of its bytes changed, cut, doubled or put elsewhere."""
    r = random.Random(seed)
    changed = bytearray(data)
    match r.randrange(5):
        case 0:
            del changed[r.randrange(len(changed)) :]
        case 1:
            for _ in range(r.randint(1, 8)):
                changed[r.randrange(len(changed))] ^= 1 << r.randrange(8)
        case 2:
            at = r.randrange(len(changed))
            changed[at : at + 4] = r.randbytes(4)
        case 3:
            at = r.randrange(len(changed))
            changed[at:at] = changed[: r.randrange(len(changed))]
        case _:
            at = r.randrange(len(changed))
            del changed[at : at + r.randint(1, 40)]
    return bytes(changed)


URLS = st.one_of(
    st.builds(lambda seed: shown(mutated(GOOD, seed))["image_url"]["url"], st.integers(0, 10**6)),
    st.sampled_from(
        [
            shown(GOOD)["image_url"]["url"],
            "http://127.0.0.1:1/a.png",
            "https://[::1/",
            "http://\u0000",
            "http://a" + "." * 300,
            "http://xn--a/",
            "file:///etc/passwd",
            "data:,",
            "data:image/png;base64,",
            "/etc/passwd",
            "//a",
        ]
    ),
    TEXTS,
)
PARTS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, TEXTS),
    st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, URLS),
    st.builds(lambda url, pixels: {"type": "image", "image": url, "max_pixels": pixels}, URLS, st.integers(-1, 10**6)),
    st.builds(lambda data: {"type": "file", "file": {"file_data": data}}, URLS),
    st.just(shown(GOOD)),
    ANYTHING,
)
CALLS = st.lists(
    st.one_of(
        st.builds(
            lambda name, arguments: {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}},
            st.one_of(TEXTS, ANYTHING),
            st.one_of(TEXTS, ANYTHING),
        ),
        ANYTHING,
    ),
    max_size=3,
)
MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "x"])},
            optional={
                "content": st.one_of(TEXTS, st.none(), st.lists(PARTS, max_size=4), ANYTHING),
                "tool_calls": st.one_of(CALLS, ANYTHING),
                "tool_call_id": st.one_of(TEXTS, ANYTHING),
                "name": TEXTS,
            },
        ),
        st.dictionaries(st.sampled_from(["role", "content"]), ANYTHING),
    ),
    max_size=5,
)
SCHEMAS = st.one_of(
    st.sampled_from(
        [
            {"type": "object"},
            {"enum": ["a", 1, None]},
            {"$ref": "#/x"},
            {"$ref": "#"},
            {"type": "string", "pattern": "(a+)+$"},
            {"type": "array", "minItems": 10**9},
            {"type": "string", "maxLength": 10**12, "minLength": 10**11},
            {"anyOf": []},
            {"type": "integer", "minimum": 1e308},
            {"not": {}},
        ]
    ),
    ANYTHING,
)
WISHES = st.fixed_dictionaries(
    {},
    optional={
        "stream": st.booleans(),
        "temperature": st.one_of(st.floats(0, 2), ANYTHING),
        "top_p": st.one_of(st.floats(0, 1), ANYTHING),
        "top_k": st.one_of(st.integers(-2, 5000), ANYTHING),
        "n": st.one_of(st.integers(0, 4), ANYTHING),
        "max_tokens": st.one_of(st.integers(0, 8), ANYTHING),
        "logprobs": st.one_of(st.booleans(), ANYTHING),
        "top_logprobs": st.one_of(st.integers(0, 21), ANYTHING),
        "stop": st.one_of(TEXTS, st.lists(TEXTS, max_size=3), ANYTHING),
        "seed": st.one_of(st.integers(), ANYTHING),
        "logit_bias": st.one_of(st.dictionaries(st.sampled_from(["1", "5000", "x", "-1"]), st.floats()), ANYTHING),
        "response_format": st.one_of(
            st.builds(lambda schema: {"type": "json_schema", "json_schema": {"schema": schema}}, SCHEMAS), ANYTHING
        ),
        "tools": st.one_of(
            st.lists(
                st.builds(
                    lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}},
                    TEXTS,
                    SCHEMAS,
                ),
                max_size=3,
            ),
            ANYTHING,
        ),
        "tool_choice": st.one_of(st.sampled_from(["auto", "none", "required"]), ANYTHING),
        "thinking": ANYTHING,
        "stream_options": st.one_of(st.just({"include_usage": True}), ANYTHING),
        "repetition_penalty": st.one_of(st.floats(0, 3), ANYTHING),
    },
)


def send(client: httpx2.Client, path: str, body: object) -> None:
    """Sees that it is answered, or refused with a reason, within bearable time."""
    content = json.dumps(body).encode()
    began = time.monotonic()
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert time.monotonic() - began < PATIENCE
    assert response.status_code < 500, (body, response.text)
    if response.status_code >= 400:
        error = response.json()["error"]
        assert len(error["message"]) > 10, body
        assert error["code"]
    elif response.headers["content-type"].startswith("text/event-stream"):
        events = [line for line in response.text.split("\n\n") if line and not line.startswith(":")]
        for event in events:
            data = event.split("data: ", 1)[1]
            assert data == "[DONE]" or "error" not in json.loads(data), event
    else:
        assert response.json()["object"]


@WEEK
@given(messages=MESSAGES, wishes=WISHES)
def test_conversations(client: httpx2.Client, messages: list[Any], wishes: dict[str, Any]) -> None:
    send(client, "/v1/chat/completions", {"messages": messages, **wishes})


@WEEK
@given(items=st.one_of(TEXTS, MESSAGES, st.lists(ANYTHING, max_size=3)), wishes=WISHES)
def test_items(client: httpx2.Client, items: Any, wishes: dict[str, Any]) -> None:
    send(client, "/v1/responses", {"input": items, **wishes})


@WEEK
@given(body=st.binary(max_size=200))
def test_bytes(client: httpx2.Client, body: bytes) -> None:
    response = client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["message"]


# -- pictures that are none, or nearly --------------------------------------------------------------


def files() -> dict[str, bytes]:
    """One of each format."""
    image = noise(3, 70, 50)
    kinds = {kind: encoded(image, kind) for kind in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "ICO")}
    palette = image.convert("P")
    kinds["frames"] = encoded(palette, "GIF", save_all=True, append_images=[palette.rotate(90)] * 3)
    kinds["pages"] = encoded(image, "TIFF", save_all=True, append_images=[image] * 3, compression="tiff_lzw")
    kinds["alpha"] = encoded(image.convert("RGBA"), "PNG")
    kinds["progressive"] = encoded(image, "JPEG", progressive=True)
    kinds["16 bits"] = encoded(Image.new("I;16", (40, 40), 999))
    kinds["PDF"] = encoded(image, "PDF")
    return kinds


def nested(data: bytes, other: bytes) -> bytes:
    """A file within another."""
    return data[: len(data) // 2] + other + data[len(data) // 2 :]


def test_mutated_pictures(roomy: Server) -> None:
    """Cut, flipped, doubled, nested: none ends the server, and its memory stays as it is."""
    process = psutil.Process(roomy.process.pid)
    kinds = files()
    r = random.Random(5)
    outcomes = {200: 0, 400: 0}
    resident: list[int] = []
    for number in range(max(REQUESTS, 200) if REQUESTS < 2000 else 2000):
        name, data = r.choice(list(kinds.items()))
        data = nested(data, r.choice(list(kinds.values()))) if r.random() < 0.1 else mutated(data, number)
        part = shown(data)
        if name == "PDF" or r.random() < 0.1:
            part = {"type": "file", "file": {"file_data": part["image_url"]["url"]}}
        body = {"messages": [{"role": "user", "content": [part, "x"]}], "max_tokens": 1}
        response = roomy.post("/v1/chat/completions", body)
        assert response.status_code in outcomes, (name, number, response.text)
        outcomes[response.status_code] += 1
        if response.status_code == 400:
            assert response.json()["error"]["code"] == "invalid_image"
        if number % 50 == 49:
            resident.append(process.memory_info().rss)
    assert min(outcomes.values()) > 20
    # the cache of pictures fills in the beginning
    assert max(resident[len(resident) // 2 :]) - resident[len(resident) // 2] < 60 * 2**20
    assert roomy.get("/health").json()["status"] == "ok"
    roomy.wait_for_rest()
