"""What every interface comes down to: a conversation, how its answers are drawn, and what they may be.

In: a request's fields. Out: :class:`Ask`, checked as far as that costs nothing: no picture is opened for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kimi_vl.chat import Message, TextPart
from kimi_vl.grammar import Grammar
from kimi_vl.parts import MARKS, Marks
from kimi_vl.sampling import SamplingParams
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.request_schema import AnsweredRequest, ContinuedRequest, Effort, SampledRequest
from kimi_vl.serve.tools import ToolChoice, as_messages, parse_choice, parse_tools
from kimi_vl.thinking import Thinking
from kimi_vl.tokenizer import Tokenizer

# Most tokens of a thought for what a client calls effort; None is no bound.
BUDGETS: dict[Effort, int | None] = {
    "none": 0, "minimal": 512, "low": 2048, "medium": 8192, "high": None, "xhigh": None,
}  # fmt: skip


@dataclass(frozen=True)
class Habits:
    """How a model answers if a request does not say."""

    thinks: bool = False
    thinking_budget: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    marks: Marks = MARKS


@dataclass(frozen=True)
class Ask:
    """``params`` is whole but for the length and the grammar, which wait for the prompt and the tokenizer.

    ``most_tokens`` is how long an answer may be, and ``None`` as long as is usual here. An answer that ``continues``
    goes on with what the last message says.
    """

    messages: tuple[Message, ...]
    params: SamplingParams
    most_tokens: int | None
    choice: ToolChoice | None = None
    schema: Mapping[str, Any] | None = None
    thinks: bool = False
    thinking_budget: int | None = None
    continues: bool = False

    def grammar(self, tokenizer: Tokenizer, marks: Marks) -> Grammar | Thinking | None:
        """What the answer must keep to. Raises: ``ValueError`` for a schema that cannot be kept to."""
        grammar: Grammar | None = None
        if self.choice is not None and (self.choice.required or self.schema is not None):
            grammar = self.choice.grammar(tokenizer, marks, self.schema)
        elif self.schema is not None:
            grammar = Grammar.json_schema(tokenizer, self.schema)
        if not self.thinks:
            return grammar
        # a call that ends a thought would be written before a grammar holds
        ends = (marks.call,) if self.choice is not None and grammar is None else ()
        return Thinking(tokenizer, marks.think, marks.answer, self.thinking_budget, ends, grammar)


def sampling(
    request: SampledRequest, habits: Habits, *, answers: int, logprobs: int | None, limits: ServerLimits
) -> SamplingParams:
    """How the answers are drawn. Raises: ``ValueError`` naming the field."""

    def given(name: str, otherwise: Any) -> Any:
        value = getattr(request, name)
        return otherwise if value is None else value

    if answers > limits.answers:
        raise ValueError(f"n asks for {answers} answers, over the limit of {limits.answers}")
    stop = request.stop or ()
    return SamplingParams(
        temperature=given("temperature", habits.temperature),
        top_p=given("top_p", habits.top_p),
        top_k=max(0, given("top_k", habits.top_k)),
        min_p=given("min_p", 0.0),
        repetition_penalty=given("repetition_penalty", habits.repetition_penalty),
        presence_penalty=given("presence_penalty", 0.0),
        frequency_penalty=given("frequency_penalty", 0.0),
        logit_bias=_logit_bias(request.logit_bias or {}),
        logprobs=logprobs,
        seed=None if request.seed is None else request.seed % 2**63,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        n=answers,
    )


def _logit_bias(raw: Mapping[str, float]) -> dict[int, float]:
    try:
        return {int(token): bias for token, bias in raw.items()}
    except ValueError:
        raise ValueError("logit_bias must map token ids to numbers") from None


def conversation(
    raw: Sequence[Mapping[str, Any]], request: AnsweredRequest, habits: Habits, limits: ServerLimits
) -> tuple[tuple[Message, ...], ToolChoice | None]:
    """Messages, with tools told of, and which of those may be called. Raises: ``ValueError`` naming the place."""
    if len(raw) > limits.messages:
        raise ValueError(f"messages has {len(raw)} entries, over the limit of {limits.messages}")
    check_schema_bytes("tools", request.tools, limits)
    tools = parse_tools(request.tools, limits.tools)
    parallel = request.parallel_tool_calls is not False
    choice = parse_choice(tools, request.tool_choice, parallel=parallel)
    told = () if choice is None else tools
    return tuple(as_messages(raw, told, habits.marks)), choice


def check_schema_bytes(name: str, schema: object, limits: ServerLimits) -> None:
    """Raises: ``ValueError`` if it is larger than may be looked at."""
    if schema is not None and (size := len(json.dumps(schema))) > limits.schema_bytes:
        raise ValueError(f"{name} has {size} bytes, over the limit of {limits.schema_bytes}")


def schema_of(kind: str, schema: Mapping[str, Any] | None, name: str, limits: ServerLimits) -> Mapping[str, Any] | None:
    """The JSON schema that a wished format stands for. Raises: ``ValueError`` if it should have one and has none."""
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if not isinstance(schema, Mapping):
        raise ValueError(f"{name} must have a JSON schema as an object")
    check_schema_bytes(name, schema, limits)
    return schema


def continues(messages: Sequence[Message], request: ContinuedRequest, habits: Habits) -> bool:
    """Whether the answer goes on with the last message. Raises: ``ValueError`` if it cannot, or none would begin."""
    if not request.continue_final_message:
        if request.add_generation_prompt is False:
            raise ValueError("add_generation_prompt is false without continue_final_message: set that too, or neither")
        return False
    if request.add_generation_prompt:
        raise ValueError("continue_final_message and add_generation_prompt are both true: set one of them")
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant":
        raise ValueError(
            "continue_final_message is true, but the last message is not the assistant's: end with what it begins to "
            "say, or leave continue_final_message out"
        )
    said, marks = "".join(part.text for part in last.parts if isinstance(part, TextPart)), habits.marks
    if habits.thinks and said.rfind(marks.think) > said.rfind(marks.answer):
        raise ValueError(
            f"continue_final_message is true, but the last message ends within a thought: close it with {marks.answer}"
        )
    return True


def thinking(request: AnsweredRequest, effort: Effort | None, habits: Habits) -> tuple[bool, int | None]:
    """Whether the model thinks first, and the budget of its thought; with 0 it writes its marks and nothing in them.

    Raises: ``ValueError`` if it should, and is none that does.
    """
    wish, template = request.thinking, request.chat_template_kwargs
    switches = [None if wish is None else wish.type == "enabled"]
    switches += [] if template is None else [template.thinking, template.enable_thinking]
    budgets = [request.thinking_budget, None if wish is None else wish.budget_tokens]
    budget = next((budget for budget in budgets if budget is not None), None)
    if not habits.thinks:
        if True in switches or budget:
            raise ValueError("thinking is asked for, but this model does not think: leave it out")
        return False, None
    if False in switches:
        return True, 0
    if budget is not None:
        return True, budget
    if effort is not None:
        return True, BUDGETS[effort]
    return True, habits.thinking_budget
