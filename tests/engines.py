"""What the engine's tests share: requests of every kind, and two ways to answer them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image

from kimi_vl import KimiVLProcessor, SamplingParams
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.pages import PAGE
from kimi_vl.engine.request import Progress, Request
from kimi_vl.engine.weights import Segment

PROCESSOR = KimiVLProcessor.from_pretrained("nano")
LINE = Image.open(Path(__file__).parents[1] / "docs" / "line.png")
LINE_SAYS = "Turn left at the second street."


def noise(seed: int, width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height))


def picture(seed: int) -> Image.Image:
    """Noise of a size of its own."""
    r = random.Random(seed)
    return noise(seed, r.randint(1, 104), r.randint(1, 52))


def ask(model: EngineModel, *parts: str | Image.Image, params: SamplingParams) -> Request:
    """One turn of texts and pictures in their order."""
    content = [part if isinstance(part, str) else {"type": "image", "image": part} for part in parts]
    inputs = PROCESSOR([{"role": "user", "content": content}])
    return Engine(model, EngineOptions(context=PAGE)).request(inputs, params)


def run(engine: Engine, *requests: Request) -> dict[str, list[Progress]]:
    """What each request is told until all have ended."""
    heard: dict[str, list[Progress]] = {request.id: [] for request in requests}
    for request in requests:
        engine.add(request)
    while engine.busy:
        for progress in engine.step():
            heard[progress.request.id].append(progress)
    return heard


def answers(engine: Engine, requests: Iterable[Request]) -> dict[str, list[int]]:
    return {name: [p.drawn.id for p in heard] for name, heard in run(engine, *requests).items()}


def simple_answer(model: EngineModel, request: Request) -> list[int]:
    """The greedy answer token by token: a cache of its own, the prompt read whole, no scheduler."""
    pages = tuple(range(-(-request.most_tokens // PAGE)))
    cache = model.new_cache(len(pages))
    x = model.embed(torch.tensor(request.prompt)).clone()
    for shown in request.pictures:
        first = shown.span.start
        x[first : first + shown.span.tokens] = model.image_features(shown.pixel_values, shown.grid)
    segment = Segment(pages, 0, len(x), True)
    answer: list[int] = []
    while True:
        states = model.run(x, [segment], cache)
        answer.append(int(model.logits(states[-1:].contiguous()).argmax()))
        if answer[-1] in request.end_ids or len(answer) == request.params.max_new_tokens:
            return answer
        x = model.embed(torch.tensor(answer[-1:]))
        segment = Segment(pages, request.most_tokens - request.params.max_new_tokens + len(answer), 1, False)
