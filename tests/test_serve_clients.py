"""Clients that people have, as they are: openai for Python and for Node, langchain-openai, litellm."""

from __future__ import annotations

import json
import shutil
import subprocess
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.serving import LINE_FILE, LINE_PART, LINE_TOKENS, Server, data_url, user
from tests.test_serve_chat import LINE_SAYS, TOOL

openai = pytest.importorskip("openai")

LINE_URL = data_url(LINE_FILE.read_bytes())
MESSAGES: Any = user(LINE_PART, {"type": "text", "text": "Read the text."})
INPUT: Any = [
    {
        "role": "user",
        "content": [
            {"type": "input_image", "image_url": LINE_URL, "detail": "auto"},
            {"type": "input_text", "text": "Read the text."},
        ],
    }
]
DRAWN: Any = {"temperature": 1.0, "seed": 1}
RESULT: Any = [
    {"role": "user", "content": "Look."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": [LINE_PART, {"type": "text", "text": "Read the text."}]},
]


class Colour(StrEnum):
    red = "red"
    green = "green"


class Thing(BaseModel):
    colour: Colour
    count: int = Field(ge=0, le=9)


@pytest.fixture
def client(server: Server) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_openai_chat(client: Any) -> None:
    answer = client.chat.completions.create(model="nano", messages=MESSAGES)
    assert answer.choices[0].message.content == LINE_SAYS
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert [model.id for model in client.models.list()] == ["nano"]
    stream = client.chat.completions.create(
        model="nano", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == LINE_SAYS
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    with client.chat.completions.stream(model="nano", messages=MESSAGES, logprobs=True) as events:
        for _ in events:
            pass
        final = events.get_final_completion().choices[0]
    assert final.message.content == LINE_SAYS
    assert "".join(token.token for token in final.logprobs.content) == LINE_SAYS


def test_openai_tools_and_a_picture_in_a_result(client: Any) -> None:
    wishes = {"model": "nano", "messages": MESSAGES, "tools": [TOOL], "tool_choice": "required", **DRAWN}
    whole = client.chat.completions.create(**wishes).choices[0]
    assert whole.finish_reason == "tool_calls"
    with client.chat.completions.stream(**wishes) as events:
        names = [event.type for event in events]
        streamed = events.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in names
    functions = [[(c.function.name, c.function.arguments) for c in x.message.tool_calls] for x in (whole, streamed)]
    assert functions[0] == functions[1]
    assert json.loads(functions[0][0][1])["what"] in ("cat", "dög")
    after = client.chat.completions.create(model="nano", messages=RESULT)
    assert after.usage.prompt_tokens_details.image_tokens == LINE_TOKENS


def test_openai_parses_structures(client: Any) -> None:
    parsed = client.chat.completions.parse(model="nano", messages=MESSAGES, response_format=Thing, **DRAWN)
    assert isinstance(parsed.choices[0].message.parsed, Thing)
    answer = client.responses.parse(model="nano", input=INPUT, text_format=Thing, temperature=1.0)
    assert isinstance(answer.output_parsed, Thing)


def test_openai_responses(client: Any) -> None:
    answer = client.responses.create(model="nano", input=INPUT, instructions="Be exact.")
    assert answer.output_text == LINE_SAYS
    assert answer.usage.input_tokens_details.cached_tokens >= 0
    with client.responses.stream(model="nano", input=INPUT) as events:
        names = [event.type for event in events]
        assert events.get_final_response().output_text == LINE_SAYS
    assert names[0] == "response.created"
    assert names[-1] == "response.completed"
    function = {"type": "function", "strict": True, **TOOL["function"]}  # type: ignore[dict-item]
    called = client.responses.create(
        model="nano", input=INPUT, tools=[function], tool_choice="required", parallel_tool_calls=False
    )
    (call,) = called.output
    assert call.type == "function_call"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": INPUT[0]["content"]}
    after = client.responses.create(model="nano", input=[*INPUT, call.to_dict(), result], tools=[function])
    assert after.usage.input_tokens > answer.usage.input_tokens


def test_openai_sees_errors_as_what_they_are(client: Any, thinker: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="nano", messages=MESSAGES, temperature=-1)
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4o'"):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    bad: Any = user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})
    with pytest.raises(openai.BadRequestError, match="picture 1 of 1") as caught:
        client.chat.completions.create(model="nano", messages=bad, stream=True)
    assert (caught.value.code, caught.value.param) == ("invalid_image", "messages")


def test_openai_sees_thoughts(thinker: Server) -> None:
    client = openai.OpenAI(base_url=f"{thinker.url}/v1", api_key="none")
    answer = client.chat.completions.create(model="thinker", messages=MESSAGES, **DRAWN)
    assert answer.choices[0].message.reasoning_content
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    off = client.chat.completions.create(model="thinker", messages=MESSAGES, reasoning_effort="none", **DRAWN)
    assert "reasoning_content" not in off.choices[0].message.to_dict()


def test_openai_completions(client: Any) -> None:
    answer = client.completions.create(model="nano", prompt="The first", max_tokens=8, logprobs=1)
    assert answer.choices[0].text
    assert len(answer.choices[0].logprobs.tokens) <= 8


def test_langchain(server: Server) -> None:
    chat_openai = pytest.importorskip("langchain_openai").ChatOpenAI
    messages = pytest.importorskip("langchain_core.messages")
    model = chat_openai(base_url=f"{server.url}/v1", api_key="none", model="nano", max_retries=0)
    question = messages.HumanMessage(MESSAGES[0]["content"])
    assert model.invoke([question]).content == LINE_SAYS
    assert "".join(chunk.content for chunk in model.stream([question])) == LINE_SAYS
    drawn = chat_openai(base_url=f"{server.url}/v1", api_key="none", model="nano", temperature=1.0, seed=1)
    assert isinstance(drawn.with_structured_output(Thing).invoke([question]), Thing)
    called = drawn.bind_tools([TOOL], tool_choice="any").invoke([question])
    assert called.tool_calls[0]["name"] == "look"
    result = messages.ToolMessage([LINE_PART], tool_call_id=called.tool_calls[0]["id"])
    assert model.invoke([question, called, result]).usage_metadata["input_tokens"] > 90


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_litellm(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm")
    where: Any = {"model": "openai/nano", "api_base": f"{server.url}/v1", "api_key": "none", "num_retries": 0}
    assert litellm.completion(messages=MESSAGES, **where).choices[0].message.content == LINE_SAYS
    chunks = list(litellm.completion(messages=MESSAGES, stream=True, **where))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == LINE_SAYS
    called = litellm.completion(messages=MESSAGES, tools=[TOOL], tool_choice="required", **DRAWN, **where)
    assert called.choices[0].message.tool_calls[0].function.name == "look"
    assert litellm.completion(messages=RESULT, **where).usage.prompt_tokens > 50
    assert litellm.responses(input=INPUT, **where).output[0].content[0].text == LINE_SAYS
    with pytest.raises(litellm.BadRequestError, match="exceed the context of 131072"):
        litellm.completion(messages=MESSAGES, max_tokens=10**6, **where)


def test_openai_for_node(server: Server, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("there is no Node here")
    for name in ("package.json", "client.mjs"):
        shutil.copy(Path(__file__).parent / "node" / name, tmp_path)
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    installed = subprocess.run([npm, "install", *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"the client cannot be installed: {installed.stderr[-200:]}")
    command = [node, "client.mjs", server.url, LINE_URL]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    assert seen["model"] == "nano"
    assert seen["chat"] == seen["streamed"] == seen["response"] == LINE_SAYS
    assert seen["streamedUsage"]["completion_tokens"] == seen["usage"]["completion_tokens"]
    assert seen["calls"][0]["name"] == "look"
    assert 0 <= json.loads(seen["calls"][0]["arguments"])["n"] <= 99
    assert seen["afterTool"]["image_tokens"] == LINE_TOKENS
    assert seen["parsed"]["colour"] in ("red", "green")
    assert seen["events"][0] == "response.created"
    assert seen["events"][-1] == "response.completed"
    assert (seen["error"]["status"], seen["error"]["code"]) == (400, "invalid_image")
    assert seen["error"]["name"] == "BadRequestError"
    assert "picture 1 of 1" in seen["error"]["message"]
