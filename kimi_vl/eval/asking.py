"""Questions → answers, by our engine in this process or by any endpoint that speaks OpenAI's chat completions.

Both take questions as they get room for them, and give answers as they are finished, in any order. What is wrong with a
question itself becomes a `Refused` answer; what is wrong with the connection ends the run, which can go on later.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from kimi_vl.chat import Message, PicturePart, PictureSource, TextPart

if TYPE_CHECKING:
    from kimi_vl.engine.engine import Engine
    from kimi_vl.processor import KimiVLProcessor
    from kimi_vl.thinking import Thinking


@dataclass(frozen=True)
class Question:
    """``number`` is whatever the answer is to be known by. ``begun`` is how the answer begins."""

    number: int
    messages: tuple[Message, ...]
    max_new_tokens: int
    begun: str = ""


@dataclass(frozen=True)
class Answered:
    """``text`` is all that was said, a thought included, without what was begun for it; ``finish`` is why it ended."""

    number: int
    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True)
class Refused:
    """Why a question cannot be asked."""

    number: int
    why: str


class Asker(Protocol):
    def ask(self, questions: Iterator[Question]) -> Iterator[Answered | Refused]: ...


class ByItem:
    """Who needs no words and no model, but the item itself, by its number."""

    def __init__(self, answer: Callable[[int], str]) -> None:
        self._answer = answer

    def ask(self, questions: Iterator[Question]) -> Iterator[Answered | Refused]:
        for question in questions:
            began = time.perf_counter()
            try:
                text = self._answer(question.number)
            except (OSError, ValueError) as error:
                yield Refused(question.number, str(error))
            else:
                yield Answered(question.number, text, "stop", 0, 0, time.perf_counter() - began)


# ---- our engine ----


class Local:
    """The engine, with as many questions at a time as it runs. ``rules`` are those of answers that think first."""

    def __init__(
        self,
        engine: Engine,
        processor: KimiVLProcessor,
        *,
        temperature: float,
        seed: int,
        rules: Thinking | None = None,
    ) -> None:
        self._engine = engine
        self._processor = processor
        self._temperature = temperature
        self._seed = seed
        self._rules = rules

    def ask(self, questions: Iterator[Question]) -> Iterator[Answered | Refused]:
        engine, most = self._engine, self._engine.options.most_running
        running: dict[str, _Running] = {}
        while True:
            while len(running) < most and (question := next(questions, None)) is not None:
                try:
                    one = self._running(question, time.perf_counter())
                except (OSError, ValueError) as error:
                    yield Refused(question.number, str(error))
                else:
                    running[one.request_id] = one
            if not running:
                return
            for progress in engine.step():
                one = running[progress.request.id]
                if progress.finish is None or progress.drawn.id not in progress.request.end_ids:
                    one.ids.append(progress.drawn.id)
                if progress.finish is not None:
                    del running[one.request_id]
                    yield self._answered(one, progress.finish)
            for request_id, failure in engine.take_failures().items():
                yield Refused(running.pop(request_id).question.number, str(failure))

    def _running(self, question: Question, began: float) -> _Running:
        from kimi_vl.sampling import SamplingParams

        messages = question.messages
        if question.begun:
            messages = (*messages, Message("assistant", (TextPart(question.begun),)))
        inputs = self._processor(messages, continue_final_message=bool(question.begun))
        params = SamplingParams(
            max_new_tokens=question.max_new_tokens,
            temperature=self._temperature,
            seed=self._seed + question.number,
            # An answer that was begun for it has no thought before it.
            grammar=None if question.begun else self._rules,
        )
        request = self._engine.request(inputs, params)
        self._engine.add(request)
        return _Running(question, request.id, len(request.prompt), [], began)

    def _answered(self, one: _Running, finish: str) -> Answered:
        return Answered(
            number=one.question.number,
            text=self._processor.tokenizer.decode(one.ids),
            finish=finish,
            prompt_tokens=one.prompt_tokens,
            completion_tokens=len(one.ids),
            seconds=time.perf_counter() - one.began,
        )


@dataclass(frozen=True)
class _Running:
    question: Question
    request_id: str
    prompt_tokens: int
    ids: list[int]
    began: float


# ---- an endpoint ----

_TRIES = 6
_PAUSE = 1.0  # seconds before the second try; twice as many before each further one
_BUSY = (408, 409, 429, 500, 502, 503, 504)


class Endpoint:
    """``url`` ends before ``/chat/completions``; as many questions at a time as are wished for."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None,
        together: int,
        temperature: float,
        seed: int,
        thinking_budget: int | None = None,
        seconds: float = 600.0,
    ) -> None:
        import httpx2

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(headers=headers, timeout=seconds)
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._reached = False
        self._model = model
        self._together = together
        self._temperature = temperature
        self._seed = seed
        self._thinking_budget = thinking_budget

    def ask(self, questions: Iterator[Question]) -> Iterator[Answered | Refused]:
        with ThreadPoolExecutor(self._together) as pool:
            asked: set[Future[Answered | Refused]] = set()
            while True:
                asked |= {pool.submit(self._one, one) for one in islice(questions, self._together - len(asked))}
                if not asked:
                    return
                done, asked = wait(asked, return_when=FIRST_COMPLETED)
                try:
                    yield from [each.result() for each in done]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

    def _one(self, question: Question) -> Answered | Refused:
        began = time.perf_counter()
        try:
            messages = [_as_openai(message) for message in question.messages]
        except (OSError, ValueError) as error:
            return Refused(question.number, str(error))
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": question.max_new_tokens,
            "temperature": self._temperature,
            "seed": self._seed + question.number,
        }
        if self._thinking_budget is not None:
            body["thinking_budget"] = self._thinking_budget
        if question.begun:
            # as vLLM has it
            body["messages"] = [*messages, {"role": "assistant", "content": question.begun}]
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        answer = self._post(body)
        if isinstance(answer, str):
            return Refused(question.number, answer)
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        text = choice["message"].get("content") or ""
        return Answered(
            number=question.number,
            text=text,
            finish=choice.get("finish_reason") or "stop",
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
            seconds=time.perf_counter() - began,
        )

    def _checked(self, text: str) -> dict[str, Any]:
        """Raises: ``ValueError`` for an answer that no chat completion is."""
        try:
            answer: dict[str, Any] = json.loads(text)
            answer["choices"][0]["message"].get("content")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._url} does not speak OpenAI's chat completions: {text[:200]!r}") from error
        return answer

    def _post(self, body: dict[str, Any]) -> dict[str, Any] | str:
        """The answer, or why the question was refused. Raises: ``ValueError`` if the endpoint cannot be used."""
        import httpx2

        pause = _PAUSE
        for tries_left in reversed(range(_TRIES)):
            try:
                response = self._client.post(self._url, json=body)
            except httpx2.TransportError as error:
                why = f"{type(error).__name__}: {error}"
                if not self._reached:
                    raise ValueError(f"{self._url} cannot be reached ({why})") from error
            else:
                self._reached = True
                if response.status_code == 200:
                    return self._checked(response.text)
                why = f"status {response.status_code}: {response.text[:300]}"
                if response.status_code in (401, 403, 404):
                    raise ValueError(f"{self._url}: {why}")
                if response.status_code not in _BUSY:
                    return why
            if tries_left:
                time.sleep(pause)
                pause *= 2
        raise ValueError(f"{self._url} gave no answer in {_TRIES} tries, the last: {why}; run again to go on")


def _as_openai(message: Message) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case TextPart(text):
                content.append({"type": "text", "text": text})
            case PicturePart(source):
                content.append({"type": "image_url", "image_url": {"url": _data_url(source)}})
            case _:
                raise ValueError("a benchmark asks about texts and pictures only")
    if message.role != "user":
        return {"role": message.role, "content": "".join(part["text"] for part in content)}
    return {"role": "user", "content": content}


def encoded(source: PictureSource) -> bytes:
    """A picture's file, as it is where there is one."""
    match source:
        case bytes():
            return source
        case Path():
            return source.read_bytes()
        case Image.Image():
            stream = io.BytesIO()
            source.save(stream, "PNG")
            return stream.getvalue()
        case _:
            raise ValueError("a benchmark's pictures are files, bytes or opened")


def _data_url(source: PictureSource) -> str:
    data = encoded(source)
    kinds = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "webp"))
    kind = next((kind for beginning, kind in kinds if data.startswith(beginning)), "png")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
