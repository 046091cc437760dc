"""``kimi-vl ask``: pictures and a question in, one answer out."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_vl.cli import options
from kimi_vl.cli.opening import open_model, open_processor
from kimi_vl.cli.structure import Structure
from kimi_vl.cli.thought import Speaker, Spoken, Thinking

if TYPE_CHECKING:
    from PIL.Image import Image

    from kimi_vl.answer import Answer


def ask(
    *,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURE", help="Pictures and PDF files in order; - is a picture from stdin.", show_default=False
        ),
    ] = None,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Always the last.", show_default=False)],
    model: options.Model = "nano",
    revision: options.Revision = None,
    offline: options.Offline = False,
    dtype: options.Dtype = None,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    presence_penalty: options.PresencePenalty = 0.0,
    frequency_penalty: options.FrequencyPenalty = 0.0,
    seed: options.Seed = None,
    stop: options.Stop = None,
    json_schema: options.JsonSchema = None,
    regex: options.Regex = None,
    choice: options.Choice = None,
    thinks: options.Thinks = None,
    thinking_budget: options.ThinkingBudget = None,
    show_thought: options.ShowThought = False,
    as_json: options.Json = False,
) -> None:
    """Ask about pictures, or just ask."""
    _check_question(question)
    pictures = _read_pictures(sources or [])
    structure = Structure(json_schema, regex, choice)
    thinking = Thinking(model, thinks, thinking_budget, show_thought)
    chosen = options.ModelChoice(model, revision, offline, dtype, device, threads)

    from kimi_vl.sampling import SamplingParams

    params = SamplingParams(
        max_new_tokens=thinking.usual_tokens if max_new_tokens is None else max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        seed=seed,
        stop=tuple(stop or ()),
    )
    processor, config, folder = open_processor(chosen)
    params = replace(params, grammar=structure.grammar(processor.tokenizer))
    params = thinking.params(params, processor.tokenizer, folder)

    from kimi_vl.answer import Reply
    from kimi_vl.processor import check_fit

    messages = [*opening_messages(system), user_message(pictures, question)]
    inputs = processor(messages)
    check_fit(config, inputs, params.max_new_tokens)
    reply = Reply(open_model(chosen), processor, inputs, params)
    spoken = Speaker(thinking, folder, stop or (), quiet=as_json).speak(reply)
    if as_json:
        print(json.dumps(_as_dict(reply.answer, spoken, model), ensure_ascii=False))
        return
    warn_if_cut(reply.answer)


def opening_messages(system: str | None) -> list[dict[str, Any]]:
    return [] if system is None else [{"role": "system", "content": system}]


def user_message(pictures: Sequence[Image | bytes], text: str) -> dict[str, Any]:
    """A turn with pictures, and PDF files as their bytes."""
    return {"role": "user", "content": [*map(_part, pictures), {"type": "text", "text": text}]}


def _part(picture: Image | bytes) -> dict[str, Any]:
    if isinstance(picture, bytes):
        return {"type": "file", "file": {"file_data": base64.b64encode(picture).decode()}}
    return {"type": "image", "image": picture}


def warn_if_cut(answer: Answer) -> None:
    tokens = answer.usage.completion_tokens
    if answer.finish_reason == "length":
        print(f"kimi-vl: cut after {tokens} tokens; --max-new-tokens allows more", file=sys.stderr)
    if answer.finish_reason == "error":
        print(f"kimi-vl: cut after {tokens} tokens, where the form asked for became too complex", file=sys.stderr)


def _check_question(question: str) -> None:
    if not question.strip():
        raise ValueError("the question, which is the last argument, is empty")
    is_file = False
    with suppress(OSError):  # longer than a file name can be
        is_file = Path(question).is_file()
    if question == "-" or is_file:
        raise ValueError(f"there is no question after {question}: the last argument must be the question")


def _read_pictures(sources: Sequence[str]) -> list[Image | bytes]:
    """Decodes them all, so that what is checked is what is answered, though a file may change meanwhile."""
    if not sources:
        return []
    if sources.count("-") > 1:
        raise ValueError("- stands for one picture from stdin: give it once")
    if "-" in sources and sys.stdin.isatty():
        raise ValueError("- reads a picture from stdin, which is the keyboard: pipe one in")

    from kimi_vl.media import DEFAULT_LIMITS, load_picture

    pictures: list[Image | bytes] = []
    for source in sources:
        if (pdf := _read_pdf(source)) is not None:
            pictures.append(pdf)
            continue
        if source != "-":
            pictures.append(load_picture(source))
            continue
        try:
            # one byte more than allowed is enough to be refused
            pictures.append(load_picture(sys.stdin.buffer.read(DEFAULT_LIMITS.max_bytes + 1)))
        except ValueError as error:
            raise ValueError(f"{error} (read from stdin)") from error
    return pictures


def _read_pdf(source: str) -> bytes | None:
    """The bytes of a PDF; ``None`` for a file of another kind, or none that can be read."""
    from kimi_vl.documents import is_pdf

    with suppress(OSError, ValueError), Path(source).open("rb") as stream:
        head = stream.read(2048)
        return head + stream.read() if is_pdf(head) else None
    return None


def _as_dict(answer: Answer, spoken: Spoken, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "text": spoken.said,
        "thought": spoken.thought,
        "finish_reason": answer.finish_reason,
        "stop_string": answer.stop_string,
        "usage": {**asdict(answer.usage), "total_tokens": answer.usage.total_tokens},
        "timings": asdict(answer.timings),
    }
