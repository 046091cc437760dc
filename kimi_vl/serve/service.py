"""One model behind all interfaces: lets a request in, reads its pictures, and has the engine answer it.

Everything that can be refused is, before the engine is troubled. Whoever leaves the ``answering`` block early, for
whatever reason, ends the work that was done in it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kimi_vl.processor import KimiVLProcessor, ModelInputs
from kimi_vl.serve.admission import Admission, Ticket
from kimi_vl.serve.answer_schema import Status
from kimi_vl.serve.answering import Answer, Delta, Reading, Whole, merged
from kimi_vl.serve.ask import Ask, Habits
from kimi_vl.serve.engine_thread import EngineThread
from kimi_vl.serve.errors import RefusedError, refused_for
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.metrics import Metrics
from kimi_vl.serve.prompt import PromptReader

if TYPE_CHECKING:
    from kimi_vl.engine.engine import Engine
    from kimi_vl.engine.request import Progress, Request

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """What one or several answers are given to."""

    text_tokens: int
    image_tokens: int

    @property
    def tokens(self) -> int:
        return self.text_tokens + self.image_tokens


@dataclass
class Answering:
    """Answers under way."""

    prompts: Sequence[Prompt]
    answers: Sequence[Answer]
    began: float
    wholes: list[Whole] = field(init=False)

    def __post_init__(self) -> None:
        self.wholes = [Whole() for _ in self.answers]

    async def deltas(self) -> AsyncGenerator[tuple[Answer, Delta], None]:
        """As they come; ``wholes`` grows with them. Raises: ``StepError``."""
        async with aclosing(merged(self.answers)) as news:
            async for answer, delta in news:
                self.wholes[answer.index].add(delta)
                yield answer, delta

    async def finish(self) -> Sequence[Whole]:
        """All of the answers. Raises: ``StepError``."""
        async for _ in self.deltas():
            pass
        return self.wholes

    @property
    def prompt_tokens(self) -> int:
        return sum(prompt.tokens for prompt in self.prompts)

    @property
    def image_tokens(self) -> int:
        return sum(prompt.image_tokens for prompt in self.prompts)

    @property
    def cached_tokens(self) -> int:
        """Of each prompt, those that the first of its answers found in the cache."""
        each = len(self.answers) // len(self.prompts)
        return sum(answer.reader.cached_tokens for answer in self.answers[::each])

    @property
    def completion_tokens(self) -> int:
        return sum(answer.reader.completion_tokens for answer in self.answers)

    @property
    def reasoning_tokens(self) -> int:
        return sum(answer.reader.reasoning_tokens for answer in self.answers)


class Service:
    """To be started and closed within one event loop."""

    def __init__(
        self, engine: Engine, processor: KimiVLProcessor, *, names: Sequence[str], habits: Habits, limits: ServerLimits
    ) -> None:
        self.names = tuple(names)
        self.habits = habits
        self.limits = limits
        self.processor = processor
        self.started = int(time.time())
        self.metrics = Metrics()
        self.prompts = PromptReader(processor, limits, self.metrics)
        self.admission = Admission(
            most_running=engine.options.most_running,
            most_waiting=limits.waiting_answers,
            most_image_tokens=limits.all_image_tokens,
        )
        self._engine = engine
        self._thread = EngineThread(engine, self._on_step)
        self._watch: asyncio.Task[None] | None = None
        self._watch_metrics()

    async def start(self) -> None:
        self._thread.start()
        await self.prompts.start()
        self._watch = asyncio.create_task(self._look_at_steps())

    async def close(self) -> None:
        """Once nobody is answered any more."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        await self.prompts.close()
        if self.status != "stuck":
            await self._thread.stop()

    def give_up(self) -> None:
        """Tells all who still wait that the server ends."""
        self._thread.give_up("the server is shutting down before this answer was whole")

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return min(self._engine.config.text_config.max_position_embeddings, self._engine.context)

    @property
    def status(self) -> Status:
        if not self._thread.alive:
            return "dead"
        if self._thread.step_seconds > self.limits.step_seconds:
            return "stuck"
        return "draining" if self.admission.draining else "ok"

    @property
    def step_seconds(self) -> float:
        return self._thread.step_seconds

    def check_model(self, name: str | None) -> str:
        """The name that an answer goes by. Raises: ``RefusedError``, 404, for another model's."""
        if name and name not in self.names:
            raise RefusedError(
                404, f"there is no model {name[:100]!r} here, only {self.names[0]!r}",
                code="model_not_found", param="model",
            )  # fmt: skip
        return name or self.names[0]

    async def read(self, ask: Ask, ticket: Ticket) -> ModelInputs:
        """Raises: ``RefusedError``."""
        return await self.prompts.read(
            ask.messages,
            lambda tokens: self.admission.take_pictures(ticket, tokens),
            continue_final_message=ask.continues,
        )

    @asynccontextmanager
    async def answering(self, ask: Ask) -> AsyncIterator[Answering]:
        """Raises: ``RefusedError`` on the way in."""
        self._check_length(ask)
        with self._entered(ask.params.n) as ticket:
            async with self._answering(ask, [await self.read(ask, ticket)]) as answering:
                yield answering

    @asynccontextmanager
    async def completing(self, ask: Ask, prompts: Sequence[ModelInputs]) -> AsyncIterator[Answering]:
        """The same for prompts that are ids already. Raises: ``RefusedError`` on the way in."""
        self._check_length(ask)
        answers = ask.params.n * len(prompts)
        if answers > self.limits.answers:
            raise RefusedError(
                400, f"prompts and n ask for {answers} answers, over the limit of {self.limits.answers}",
                code="too_many_answers",
            )  # fmt: skip
        with self._entered(answers):
            async with self._answering(ask, prompts) as answering:
                yield answering

    def _entered(self, answers: int) -> AbstractContextManager[Ticket]:
        if self.status in ("dead", "stuck"):
            raise RefusedError(
                503, "the engine has stopped working; the server has to be restarted", code="engine_stuck"
            )
        return self.admission.enter(answers)

    @asynccontextmanager
    async def _answering(self, ask: Ask, prompts: Sequence[ModelInputs]) -> AsyncIterator[Answering]:
        began = time.monotonic()
        marks = self.habits.marks if ask.messages else None
        reading = Reading(self.processor.tokenizer, marks, ask.thinks, ask.choice is not None, ask.params.stop)
        requests = await asyncio.to_thread(self._requests, ask, prompts)
        answers: list[Answer] = []
        try:
            for request in requests:
                answers.append(Answer(self._thread.submit(request), reading, len(answers)))
            shown = [Prompt(inputs.text_tokens, inputs.image_tokens) for inputs in prompts]
            del prompts, requests  # pixels, which the engine lets go when it has seen them
            answering = Answering(shown, answers, began)
            yield answering
            self._count(answering)
        finally:
            for answer in answers:
                answer.close()

    def _requests(self, ask: Ask, prompts: Sequence[ModelInputs]) -> list[Request]:
        """Raises: ``RefusedError`` for what could never be answered."""
        try:
            grammar = ask.grammar(self.processor.tokenizer, self.habits.marks)
        except ValueError as error:
            raise refused_for(error, code="invalid_schema") from None
        requests: list[Request] = []
        for inputs in prompts:
            params = replace(ask.params, max_new_tokens=self._new_tokens(ask, inputs), grammar=grammar)
            try:
                requests += [self._engine.request(inputs, each) for each in params.each()]
                self._engine.check(requests[-1])
            except ValueError as error:
                raise refused_for(error) from None
        return requests

    def _check_length(self, ask: Ask) -> None:
        """Refuses what no prompt is short enough for, before it takes up room."""
        if ask.most_tokens is not None and ask.most_tokens >= self.context:
            raise RefusedError(
                400,
                f"{ask.most_tokens} new tokens exceed the context of {self.context}: ask for fewer",
                code="context_length_exceeded",
                param="max_tokens",
            )

    def _new_tokens(self, ask: Ask, inputs: ModelInputs) -> int:
        room = self.context - inputs.text_tokens - inputs.image_tokens
        usual = self.limits.thinking_new_tokens if ask.thinks else self.limits.new_tokens
        wanted = min(usual, max(1, room)) if ask.most_tokens is None else ask.most_tokens
        if wanted > room:
            raise RefusedError(
                400,
                f"{inputs.text_tokens} text tokens, {inputs.image_tokens} image tokens and {wanted} new tokens exceed "
                f"the context of {self.context}: send less, fewer or smaller pictures, or ask for fewer tokens",
                code="context_length_exceeded",
                param="messages",
            )
        return wanted

    def _on_step(self, seconds: float, progress: Sequence[Progress]) -> None:
        self.metrics.step_seconds.observe(seconds)
        self.metrics.generated_tokens.inc(len(progress))

    def _count(self, answering: Answering) -> None:
        if any(whole.finish is None for whole in answering.wholes):
            self.metrics.abandoned.inc()
            return
        seconds = time.monotonic() - answering.began
        metrics = self.metrics
        metrics.request_seconds.observe(seconds)
        metrics.prompt_tokens.inc(answering.prompt_tokens)
        metrics.image_tokens.inc(answering.image_tokens)
        metrics.cached_tokens.inc(answering.cached_tokens)
        metrics.reasoning_tokens.inc(answering.reasoning_tokens)
        self.admission.answered(seconds)
        for answer, whole in zip(answering.answers, answering.wholes, strict=True):
            metrics.finished.labels(whole.finish).inc()
            if answer.first is None:
                continue
            metrics.first_token_seconds.observe(answer.first - answering.began)
            if (more := answer.reader.completion_tokens - 1) > 0:
                metrics.token_seconds.observe((answer.last - answer.first) / more)

    async def _look_at_steps(self) -> None:
        """Tells those who wait for a step that does not end."""
        while True:
            await asyncio.sleep(min(1.0, self.limits.step_seconds / 4))
            if self.status in ("stuck", "dead"):
                _LOG.error("the engine is %s; its step has run for %.0f s", self.status, self._thread.step_seconds)
                self._thread.give_up("the engine does not come on with its work; the server has to be restarted")

    def _watch_metrics(self) -> None:
        watch = self.metrics.watch
        watch("answers", "Answers that wait or are under way.", lambda: self.admission.answers)
        watch("running_answers", "Answers that the engine works on.", lambda: self._engine.running)
        watch("waiting_answers", "Answers that wait for the engine.", lambda: self._engine.waiting)
        watch("waiting_image_tokens", "Tokens of their pictures.", lambda: self.admission.image_tokens)
        watch("cache_pages", "Pages of the cache, 64 tokens each.", lambda: self._engine.pages)
        watch("cache_pages_free", "Pages that no answer holds.", lambda: self._engine.pages_free)
        watch("step_seconds_now", "For which the present step has run.", lambda: self._thread.step_seconds)
