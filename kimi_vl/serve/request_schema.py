"""The bodies that come, in OpenAI's shapes. What is not known is passed over, what cannot be done is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_Object = dict[str, Any]
_Count = Annotated[int, Field(ge=1)]


class SampledRequest(BaseModel):
    """What all of them may have."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str | None = Field(default=None, description="An id of /v1/models; the only one if not given.")
    stream: bool | None = Field(default=None, description="Whether the answer comes as server-sent events.")
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, description="0 and -1: all.")
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None

    def refuse(self, **instead: str) -> None:
        """Raises: ``ValueError`` for a field of ``instead`` that is given, and says what to do instead of it."""
        for name, way_out in instead.items():
            if (self.model_extra or {}).get(name) not in (None, False, [], {}):
                raise ValueError(f"{name} is not known here: {way_out}")


class StreamOptions(BaseModel):
    include_usage: bool | None = None


class ThinkingWish(BaseModel):
    """``{"type": "enabled" | "disabled", "budget_tokens": …}``."""

    type: Literal["enabled", "disabled"] = "enabled"
    budget_tokens: int | None = Field(default=None, ge=0)


class TemplateWishes(BaseModel):
    """Of what other servers hand to a chat template, the one thing that there is here."""

    model_config = ConfigDict(extra="allow")

    thinking: bool | None = None
    enable_thinking: bool | None = None


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class AnsweredRequest(SampledRequest):
    thinking: ThinkingWish | None = None
    thinking_budget: int | None = Field(default=None, ge=0, description="Most tokens of a thought; 0 is none.")
    chat_template_kwargs: TemplateWishes | None = None
    tools: list[_Object] | None = None
    tool_choice: str | _Object | None = None
    parallel_tool_calls: bool | None = None


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Object | None = None


class ContinuedRequest(AnsweredRequest):
    """One that ends with its messages."""

    continue_final_message: bool | None = Field(
        default=None, description="The answer goes on with the last message, which is the assistant's."
    )
    add_generation_prompt: bool | None = Field(default=None, description="The contrary of continue_final_message.")


class ChatRequest(ContinuedRequest):
    """``POST /v1/chat/completions``."""

    messages: list[_Object] = Field(
        description="Turns of system, developer, user, assistant and tool. Content is text, or a list of texts, "
        "pictures and files in their order."
    )
    stream_options: StreamOptions | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None

    @model_validator(mode="after")
    def _refuse(self) -> ChatRequest:
        self.refuse(
            functions="give tools",
            function_call="give tool_choice",
            audio="answers are text",
            prediction="leave it out",
            web_search_options="give tools of your own",
        )
        return self


class TextFormat(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Literal["text", "json_object", "json_schema"]
    # named so by the interface, while a model has a method of this name
    schema_: _Object | None = Field(default=None, alias="schema")


class TextWishes(BaseModel):
    model_config = ConfigDict(extra="allow")

    format: TextFormat | None = None


class ReasoningWishes(BaseModel):
    model_config = ConfigDict(extra="allow")

    effort: Effort | None = None


class ResponsesRequest(AnsweredRequest):
    """``POST /v1/responses``."""

    input: str | list[_Object] = Field(
        description="A question, or messages, function calls, their outputs and reasoning in their order."
    )
    instructions: str | None = None
    max_output_tokens: _Count | None = None
    include: list[str] | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    text: TextWishes | None = None
    reasoning: ReasoningWishes | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="after")
    def _refuse(self) -> ResponsesRequest:
        self.refuse(
            previous_response_id="no conversations are kept; send all of it as input",
            conversation="no conversations are kept; send all of it as input",
            prompt="no prompts are kept; send instructions and input",
            background="stay connected",
        )
        return self


class CompletionRequest(SampledRequest):
    """``POST /v1/completions``: text without a chat's structure, and no pictures."""

    prompt: str | list[str] | list[int] | list[list[int]]
    stream_options: StreamOptions | None = None
    max_tokens: _Count | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _is_text(cls, prompt: Any) -> Any:
        parts = prompt if isinstance(prompt, list) else [prompt]
        if any(isinstance(part, dict) for part in parts):
            raise ValueError("must be text or token ids; pictures go to /v1/chat/completions")
        return prompt

    @model_validator(mode="after")
    def _refuse(self) -> CompletionRequest:
        way_out = "pictures go to /v1/chat/completions"
        self.refuse(
            suffix="leave it out",
            best_of="give n",
            messages="they go to /v1/chat/completions",
            images=way_out,
            image=way_out,
            multi_modal_data=way_out,
        )
        return self


class TokenizeRequest(ContinuedRequest):
    """``POST /v1/tokenize``: a conversation with its pictures, or plain text as ``prompt``."""

    messages: list[_Object] | None = None
    prompt: str | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeRequest:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give either messages or prompt")
        return self
