"""The server's routes, and what becomes of errors in them."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response

from kimi_vl.serve import chat_completions, completions, responses
from kimi_vl.serve.answer_schema import (
    ChatCompletion,
    Completion,
    ErrorBody,
    Health,
    InputTokens,
    Modalities,
    ModelCard,
    ModelList,
    PictureLimitsShown,
    ResponseDocument,
    TokenCount,
)
from kimi_vl.serve.ask import Ask
from kimi_vl.serve.engine_thread import StepError
from kimi_vl.serve.envelope import Envelope
from kimi_vl.serve.errors import RefusedError, refused_for
from kimi_vl.serve.guard import Guard, Keys
from kimi_vl.serve.metrics import CONTENT_TYPE
from kimi_vl.serve.request_schema import (
    ChatRequest,
    CompletionRequest,
    ResponsesRequest,
    SampledRequest,
    TokenizeRequest,
)
from kimi_vl.serve.service import Answering, Service
from kimi_vl.serve.wire import ClientGoneError, EventStream, event, json_response, unless_gone

_T = TypeVar("_T")
_FORMATS = [
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/avif",
    "image/tiff",
    "image/bmp",
    "image/gif",
    "image/x-icon",
    *(["image/heic"] if find_spec("pi_heif") else []),
]
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": what}
    for status, what in {
        400: "Something in the request cannot be done; the message says what.",
        401: "An API key is needed, or is not known.",
        403: "Not from there.",
        404: "No such model.",
        408: "The body came too slowly.",
        413: "The body is too large.",
        429: "Too much at once; Retry-After says when to come back.",
        500: "The engine failed.",
        503: "The server is shutting down, or its engine is stuck.",
    }.items()
}
_EVENTS = {"text/event-stream": {"itemSchema": {"type": "object"}}}
# The page brings all that it needs, and may show pictures that a person picked.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(service: Service, *, keys: Keys, origins: tuple[str, ...] = ()) -> FastAPI:
    """``origins`` are the sites whose pages may call this server from a browser."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    def count(refused: RefusedError) -> None:
        service.metrics.errors.labels(refused.code).inc()

    middleware = [Middleware(Guard, keys=keys, limits=service.limits, on_refusal=count)]
    if origins:
        # in front, so that a browser may read what the guard says
        middleware.insert(
            0,
            Middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"]),
        )
    app = FastAPI(title="kimi-vl", docs_url=None, redoc_url=None, lifespan=lifespan, middleware=middleware)
    _add_errors(app, service, count)
    _add_interfaces(app, service)
    _add_views(app, service)
    return app


def _add_interfaces(app: FastAPI, service: Service) -> None:
    habits, limits = service.habits, service.limits

    def post(path: str, whole: type[BaseModel] | None = None) -> Callable[[Any], Any]:
        """A route with a body."""
        answer: dict[str, Any] = {} if whole is None else {"model": whole}
        shown: dict[int | str, dict[str, Any]] = {200: answer | {"content": _EVENTS}, **_REFUSALS}
        return app.post(path, response_model=None, responses=shown)

    @post("/v1/chat/completions", ChatCompletion)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answers a conversation."""
        envelope = _envelope(service, body, "chatcmpl", logprobs=bool(body.logprobs))
        ask = _checked(partial(chat_completions.ask_of, body, habits, limits))
        with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return await _answer(
            request,
            service,
            body,
            service.answering(ask),
            whole=lambda answering: chat_completions.completion(answering, envelope),
            stream=lambda answering: chat_completions.chunks(answering, envelope, with_usage=with_usage),
        )

    @post("/v1/responses", ResponseDocument)
    async def respond(body: ResponsesRequest, request: Request) -> Response:
        """Answers items with items. No conversation is kept."""
        envelope = _envelope(service, body, "resp", logprobs=responses.wants_logprobs(body))
        ask = _checked(partial(responses.ask_of, body, habits, limits))

        def builder(answering: Answering) -> responses.ResponseBuilder:
            return responses.ResponseBuilder(body, envelope, answering)

        return await _answer(
            request,
            service,
            body,
            service.answering(ask),
            whole=lambda answering: responses.response(builder(answering), answering),
            stream=lambda answering: responses.events(builder(answering), answering),
        )

    @post("/v1/completions", Completion)
    async def complete(body: CompletionRequest, request: Request) -> Response:
        """Goes on with text."""
        envelope = _envelope(service, body, "cmpl", logprobs=body.logprobs is not None)
        ask = _checked(partial(completions.ask_of, body, habits, limits))
        prompts = _checked(partial(completions.prompts_of, body, service.processor))
        texts = completions.echoes(body, prompts, service.processor)
        with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return await _answer(
            request,
            service,
            body,
            service.completing(ask, prompts),
            whole=lambda answering: completions.completion(answering, envelope, texts),
            stream=lambda answering: completions.chunks(answering, envelope, texts, with_usage=with_usage),
        )

    @post("/v1/tokenize", TokenCount)
    async def tokenize(body: TokenizeRequest, request: Request) -> Response:
        """Counts what a conversation with its pictures, or a text, takes up."""
        service.check_model(body.model)
        if body.prompt is not None:
            ids = service.processor.tokenizer.encode(body.prompt)
            return json_response(_counted(service, ids, image_tokens=0))
        chat = ChatRequest(
            messages=body.messages or [],
            tools=body.tools,
            tool_choice=body.tool_choice,
            continue_final_message=body.continue_final_message,
            add_generation_prompt=body.add_generation_prompt,
        )
        ask = _checked(partial(chat_completions.ask_of, chat, habits, limits))
        return json_response(await unless_gone(request.receive, _read(service, ask)))

    @post("/v1/responses/input_tokens", InputTokens)
    async def count_input(body: ResponsesRequest, request: Request) -> Response:
        """Counts what the input of a response takes up."""
        service.check_model(body.model)
        ask = _checked(partial(responses.ask_of, body, habits, limits))
        tokens = await unless_gone(request.receive, _read(service, ask))
        return json_response(InputTokens(object="response.input_tokens", input_tokens=tokens.count))


def _add_views(app: FastAPI, service: Service) -> None:
    page = files("kimi_vl.serve").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    @app.get("/v1/models", response_model=ModelList, responses=_only(401, 403))
    async def models() -> ModelList:
        """What is served here, and what it takes."""
        return ModelList(object="list", data=[_card(service, name) for name in service.names])

    @app.get("/v1/models/{name:path}", response_model=ModelCard, responses=_only(401, 403, 404))
    async def model(name: str) -> ModelCard:
        """One of them."""
        return _card(service, service.check_model(name))

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        """Whether the engine comes on with its work."""
        return _health(service, 503 if service.status in ("stuck", "dead") else 200)

    @app.get("/ready", response_model=Health, responses={503: {"model": Health}})
    async def ready() -> Response:
        """Whether new requests are welcome."""
        return _health(service, 200 if service.status == "ok" else 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.shown(), media_type=CONTENT_TYPE)


def _add_errors(app: FastAPI, service: Service, count: Callable[[RefusedError], None]) -> None:
    def refuse(refused: RefusedError) -> Response:
        count(refused)
        return json_response(refused.body, refused.status, refused.headers)

    @app.exception_handler(RefusedError)
    async def _(request: Request, error: RefusedError) -> Response:
        return refuse(error)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        return refuse(_refused_for_body(error))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed"}
        what = {404: f"there is nothing at {request.url.path[:200]}", 405: f"{request.method} is not for this address"}
        message = what.get(error.status_code, str(error.detail))
        response = refuse(RefusedError(error.status_code, message, code=codes.get(error.status_code, "bad_request")))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(StepError)
    async def _(request: Request, error: StepError) -> Response:
        return refuse(_failed(service, error))

    @app.exception_handler(ClientGoneError)
    async def _(request: Request, error: ClientGoneError) -> Response:
        service.metrics.abandoned.inc()
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> Response:
        # logged by the server; what it says may hold what was asked
        return refuse(RefusedError(500, "the server failed at this request; its log says why", code="internal_error"))


def _failed(service: Service, error: StepError) -> RefusedError:
    codes = {"ok": "engine_failed", "draining": "shutting_down", "stuck": "engine_stuck", "dead": "engine_stuck"}
    status = service.status
    return RefusedError(500 if status == "ok" else 503, str(error), code=codes[status])


def _refused_for_body(error: RequestValidationError) -> RefusedError:
    """What is wrong with a body, by the first fault that was found in it."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(place) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return RefusedError(400, f"the body is not JSON: {first.get('ctx', {}).get('error', message)}", code="not_json")
    if first["type"] == "missing" and not place:
        return RefusedError(400, "the body is empty: send JSON", code="not_json")
    if not place and first["type"].endswith("_type"):
        return RefusedError(400, "the body must be a JSON object, sent as application/json", code="not_json")
    return RefusedError(400, f"{param}: {message}" if param else message, code="invalid_value", param=param)


def _checked(make: Callable[[], _T]) -> _T:
    try:
        return make()
    except ValueError as error:
        raise refused_for(error) from None


def _envelope(service: Service, body: SampledRequest, prefix: str, *, logprobs: bool) -> Envelope:
    return Envelope(
        id=f"{prefix}-{secrets.token_hex(16)}" if prefix != "resp" else f"resp_{secrets.token_hex(16)}",
        created=int(time.time()),
        model=service.check_model(body.model),
        tokenizer=service.processor.tokenizer,
        logprobs=logprobs,
    )


async def _answer(
    request: Request,
    service: Service,
    body: SampledRequest,
    answering: AbstractAsyncContextManager[Answering],
    *,
    whole: Callable[[Answering], Coroutine[Any, Any, BaseModel | dict[str, Any]]],
    stream: Callable[[Answering], AsyncGenerator[bytes, None]],
) -> Response:
    """Lets a request in, and answers it at once or piece by piece."""
    async with AsyncExitStack() as stack:
        entered = await unless_gone(request.receive, stack.enter_async_context(answering))
        service.metrics.requests.labels(request.url.path).inc()
        if not body.stream:
            return json_response(await unless_gone(request.receive, whole(entered)))
        events = _with_failure_told(service, stream(entered))
        return EventStream(events, stack.pop_all(), send_seconds=service.limits.send_seconds)
    raise AssertionError


async def _with_failure_told(service: Service, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Once a stream has begun, its last event is the only place for an error."""
    try:
        async with aclosing(events):
            async for each in events:
                yield each
    except StepError as error:
        refused = _failed(service, error)
        service.metrics.errors.labels(refused.code).inc()
        yield event(refused.body, "error")


async def _read(service: Service, ask: Ask) -> TokenCount:
    with service.admission.enter(1) as ticket:
        inputs = await service.read(ask, ticket)
    return _counted(service, inputs.input_ids.tolist(), image_tokens=inputs.image_tokens)


def _counted(service: Service, ids: list[int], *, image_tokens: int) -> TokenCount:
    return TokenCount(
        count=len(ids),
        text_tokens=len(ids) - image_tokens,
        image_tokens=image_tokens,
        max_model_len=service.context,
        tokens=ids,
    )


def _card(service: Service, name: str) -> ModelCard:
    limits = service.limits
    modalities = Modalities(input_modalities=["text", "image"], output_modalities=["text"])
    return ModelCard(
        id=name,
        object="model",
        created=service.started,
        owned_by="kimi-vl",
        max_model_len=service.context,
        context_length=service.context,
        architecture=modalities,
        input_modalities=modalities.input_modalities,
        output_modalities=modalities.output_modalities,
        capabilities=["vision", "tools", "json_schema", *(["thinking"] if service.habits.thinks else [])],
        picture_limits=PictureLimitsShown(
            pictures=limits.pictures,
            bytes=limits.picture_bytes,
            request_bytes=limits.body_bytes,
            pixels=limits.picture_pixels,
            tokens=service.processor.image_config.in_token_limit,
            formats=_FORMATS,
        ),
    )


def _health(service: Service, status: int) -> Response:
    shown = Health(status=service.status, step_seconds=service.step_seconds, answers=service.admission.answers)
    return json_response(shown, status)


def _only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _REFUSALS[status] for status in statuses}
