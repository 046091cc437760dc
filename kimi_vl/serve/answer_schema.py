"""The bodies that go, in OpenAI's shapes. They name every field that they set, and only those are sent."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every refusal."""

    error: ErrorDetail


class PromptDetails(BaseModel):
    cached_tokens: int
    text_tokens: int
    image_tokens: int


class CompletionDetails(BaseModel):
    reasoning_tokens: int


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprobs]


class FunctionCall(BaseModel):
    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


Finish = Literal["stop", "length", "tool_calls"]


class ChatChoice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class FunctionDelta(BaseModel):
    name: str | None = None
    arguments: str


class ToolCallDelta(BaseModel):
    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class ChatDelta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChatChunkChoice(BaseModel):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


Progress = Literal["in_progress", "completed", "incomplete"]


class ReasoningText(BaseModel):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(BaseModel):
    type: Literal["reasoning"]
    id: str
    status: Progress
    summary: list[str]
    content: list[ReasoningText]


class OutputText(BaseModel):
    type: Literal["output_text"]
    text: str
    annotations: list[str]
    logprobs: list[TokenLogprobs]


class MessageItem(BaseModel):
    type: Literal["message"]
    id: str
    status: Progress
    role: Literal["assistant"]
    content: list[OutputText]


class FunctionCallItem(BaseModel):
    type: Literal["function_call"]
    id: str
    status: Progress
    call_id: str
    name: str
    arguments: str


Item = ReasoningItem | MessageItem | FunctionCallItem
Content = ReasoningText | OutputText


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens"]


class ResponsesUsage(BaseModel):
    input_tokens: int
    input_tokens_details: PromptDetails
    output_tokens: int
    output_tokens_details: CompletionDetails
    total_tokens: int


class ShownReasoning(BaseModel):
    effort: str | None
    summary: None


class ShownText(BaseModel):
    format: dict[str, Any]


class ShownTool(BaseModel):
    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool


class ResponseDocument(BaseModel):
    """``/v1/responses``: the answer, and what it was asked with."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Progress
    background: Literal[False]
    error: None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[Item]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: ShownReasoning
    store: Literal[False]
    temperature: float | None
    text: ShownText
    tool_choice: str | dict[str, Any]
    tools: list[ShownTool]
    top_p: float | None
    truncation: Literal["disabled"]
    usage: ResponsesUsage | None


class ResponseEvent(BaseModel):
    """One of a stream; which fields it has depends on its type."""

    type: str
    sequence_number: int
    response: ResponseDocument | None = None
    item: Item | None = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    part: Content | None = None
    delta: str | None = None
    text: str | None = None
    name: str | None = None
    arguments: str | None = None
    logprobs: list[TokenLogprobs] | None = None


class TokenCount(BaseModel):
    count: int
    text_tokens: int
    image_tokens: int
    max_model_len: int
    tokens: list[int]


class InputTokens(BaseModel):
    object: Literal["response.input_tokens"]
    input_tokens: int


class Modalities(BaseModel):
    input_modalities: list[str]
    output_modalities: list[str]


class PictureLimitsShown(BaseModel):
    pictures: int
    bytes: int = Field(description="Of one picture's file.")
    request_bytes: int = Field(description="Of the whole body, in which base64 takes a third more.")
    pixels: int
    tokens: int = Field(description="Of one picture; a larger one is scaled down.")
    formats: list[str]


class ModelCard(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    context_length: int
    architecture: Modalities
    input_modalities: list[str]
    output_modalities: list[str]
    capabilities: list[str]
    picture_limits: PictureLimitsShown


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


Status = Literal["ok", "stuck", "dead", "draining"]


class Health(BaseModel):
    status: Status
    step_seconds: float
    answers: int


ClusterStatus = Literal["ok", "degraded", "dead"]


class ClusterHealth(BaseModel):
    """Of several replicas: ``degraded`` if only some are ok."""

    status: ClusterStatus
    replicas: dict[str, Status]
