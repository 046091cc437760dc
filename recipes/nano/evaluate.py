"""Measures nano on what it never saw; recipes.nano.heldout says what that is.

    python -m recipes.nano.evaluate lines|screens [--model FOLDER] [--count 1000]     character error rate
    python -m recipes.nano.evaluate emoji [--model FOLDER]                            top-1 among 200 names
    python -m recipes.nano.evaluate pointing|charts|counting|… [--model FOLDER]       right answers of each kind
    python -m recipes.nano.evaluate needle|needle-text|documents [--window 4096]      the same of long ones

In the weights' own precision; a FOLDER in 4 bits (kimi-vl quantize nano FOLDER) is run by the engine. Prints one JSON
object. Of long ones it asks 200 if not told otherwise. The same sets with Tesseract and others beside, by the engine or
an endpoint and item by item: recipes.nano.tasks.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, tee

import torch
from PIL import Image
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from kimi_vl import KimiVL, KimiVLProcessor, Reply, SamplingParams
from kimi_vl.engine.engine import Engine
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.pages import PAGE
from kimi_vl.engine.store import is_quantized
from kimi_vl.engine.weights import Segment
from kimi_vl.generate import prefill
from kimi_vl.hub import CONFIG_FILES, WEIGHT_FILES, resolve
from kimi_vl.model.attention import LatentCache
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.processor import ModelInputs
from recipes.nano import heldout, questions
from recipes.nano.evaluation import EVAL_NAMES
from recipes.nano.heldout import KINDS, LONG, READ, Exam, WrittenLine, lines, screen_lines
from recipes.nano.samples import question_of
from recipes.nano.scenes import heldout_emoji


def character_error_rate(lines: Sequence[WrittenLine], said: Iterable[str]) -> dict[str, float]:
    """Edits over characters, of all lines together. White space is compared as single blanks."""
    edits = characters = right = 0
    for line, reading in zip(lines, said, strict=True):
        wanted = " ".join(line.text.split())
        distance = Levenshtein.distance(" ".join(reading.split()), wanted)
        edits += distance
        characters += len(wanted)
        right += distance == 0
    return {
        "lines": len(lines),
        "characters": characters,
        "character_error_rate": edits / characters,
        "lines_right": right / len(lines),
    }


# ---- nano, exact or in 4 bits ----


def open_model(name: str) -> KimiVL | Engine:
    folder = resolve(name, (*CONFIG_FILES, *WEIGHT_FILES))
    return Engine.from_pretrained(folder) if is_quantized(folder) else KimiVL.from_pretrained(folder, dtype="float32")


def asked(
    pictures: Sequence[Image.Image], question: str, processor: KimiVLProcessor, *, pages: bool = False
) -> ModelInputs:
    return processor([question_of(pictures, question, pages=pages)])


def says(
    model: KimiVL | Engine, processor: KimiVLProcessor, conversations: Iterable[ModelInputs], max_new_tokens: int
) -> Iterator[str]:
    """The greedy answers in order."""
    params = SamplingParams(max_new_tokens=max_new_tokens)
    if isinstance(model, KimiVL):
        for inputs in conversations:
            yield Reply(model, processor, inputs, params).answer.text
        return
    waiting = iter(conversations)
    while together := list(islice(waiting, model.options.most_running)):
        requests = [model.request(inputs, params) for inputs in together]
        ids: dict[str, list[int]] = {request.id: [] for request in requests}
        for request in requests:
            model.add(request)
        while model.busy:
            for progress in model.step():
                ids[progress.request.id].append(progress.drawn.id)
        for request in requests:
            yield processor.tokenizer.decode([i for i in ids[request.id] if i not in request.end_ids])


def likeliest(first: Tensor, names: Sequence[Sequence[int]], after: Callable[[Sequence[int]], Tensor]) -> int:
    """Which name's tokens have the greatest sum of log-probabilities, all told.

    Args:
        first: logits [vocabulary] before a name.
        names: of at least two tokens each, the end of turn included.
        after: tokens of a name but its last -> logits [tokens, vocabulary] after each. Not asked of a name whose first
            token is less likely by itself than the best name as a whole.
    """
    begins = first.float().log_softmax(-1)[[name[0] for name in names]]
    best, most = -1, float("-inf")
    for index in begins.argsort(descending=True).tolist():
        if float(begins[index]) <= most:
            break
        *seen, _ = name = names[index]
        rest = after(seen).float().log_softmax(-1)[torch.arange(len(seen)), torch.tensor(name[1:])]
        if (score := float(begins[index] + rest.sum())) > most:
            best, most = index, score
    return best


@torch.inference_mode()
def likeliest_name(model: KimiVLForConditionalGeneration, inputs: ModelInputs, names: Sequence[Sequence[int]]) -> int:
    cache = LatentCache(model.config.text_config, dtype=model.dtype, device=model.device)
    prompt = inputs.input_ids
    first = prefill(model, prompt, cache, pixel_values=inputs.pixel_values, image_grid_hws=inputs.image_grid_hws)

    def after(seen: Sequence[int]) -> Tensor:
        # The prompt is read once: what a name before it left in the cache is written over.
        cache.length = len(prompt)
        states = model.hidden(model.embed(torch.tensor(seen)), torch.arange(len(seen)) + len(prompt), cache).states
        return model.language_model.lm_head(states)

    return likeliest(first, names, after)


def likeliest_name_in_4_bits(model: EngineModel, inputs: ModelInputs, names: Sequence[Sequence[int]]) -> int:
    """The same in a conversation with one picture."""
    prompt = inputs.input_ids
    pages = tuple(range(-(-(len(prompt) + max(map(len, names))) // PAGE)))
    cache = model.new_cache(len(pages))
    assert inputs.pixel_values is not None
    h, w = inputs.image_grid_hws[0].tolist()
    x = model.embed(prompt).clone()
    x[prompt == model.config.media_placeholder_token_id] = model.image_features(inputs.pixel_values, (h, w))
    (first,) = model.logits(model.run(x, [Segment(pages, 0, len(prompt), True)], cache)[-1:].contiguous())

    def after(seen: Sequence[int]) -> Tensor:
        answer = Segment(pages, len(prompt), len(seen), False)
        return model.logits(model.run(model.embed(torch.tensor(seen)), [answer], cache))

    return likeliest(first, names, after)


def emoji_top1(model: KimiVL | Engine, processor: KimiVLProcessor) -> dict[str, float]:
    """For each of 200 names, the held-out drawing: is its own name, with the end of turn, the likeliest?"""
    tokenizer = processor.tokenizer
    names = [[*tokenizer.encode(name), tokenizer.im_end_id] for name in EVAL_NAMES]
    conversations = [asked([heldout_emoji(name)], questions.NAME[0], processor) for name in EVAL_NAMES]
    right = 0
    for index, inputs in enumerate(conversations):
        if isinstance(model, KimiVL):
            right += likeliest_name(model.model, inputs, names) == index
        else:
            assert isinstance(model.model, EngineModel)
            right += likeliest_name_in_4_bits(model.model, inputs, names) == index
    said = sum(text == name for text, name in zip(says(model, processor, conversations, 16), EVAL_NAMES, strict=True))
    return {"names": len(names), "top_1": right / len(names), "said_exactly": said / len(names)}


def right_answers(exams: Iterable[Exam], said: Iterable[str]) -> dict[str, float]:
    """The share of right answers, of all and of each kind, half the width of its 95 % interval, and of blind ones."""
    marks: dict[str, list[bool]] = {}
    blind: list[bool] = []
    for exam, answer in zip(exams, said, strict=True):
        marks.setdefault(exam.kind, []).append(exam.is_right(answer))
        blind.append(exam.is_right(exam.blind))
    every = [mark for of_kind in marks.values() for mark in of_kind]
    share = sum(every) / len(every)
    of_kinds = {kind: sum(of_kind) / len(of_kind) for kind, of_kind in sorted(marks.items())}
    give_or_take = 1.96 * (share * (1 - share) / len(every)) ** 0.5
    return {"right": share, "give_or_take": give_or_take, "blind": sum(blind) / len(blind), **of_kinds}


LINES = {"lines": lines, "screens": screen_lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*LINES, "emoji", *KINDS, *LONG])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int)
    parser.add_argument("--window", type=int, default=heldout.WINDOW, help="tokens of a long one")
    args = parser.parse_args()
    count = args.count or (200 if args.what in LONG else 1000)
    processor = KimiVLProcessor.from_pretrained(args.model)
    if args.what == "emoji":
        figures = emoji_top1(open_model(args.model), processor)
    elif args.what in LINES:
        written = LINES[args.what](count)
        conversations = (asked([line.image], READ, processor) for line in written)
        said = says(open_model(args.model), processor, conversations, heldout.LINE_TOKENS)
        figures = character_error_rate(written, said)
    else:
        drawn = LONG[args.what](count, args.window) if args.what in LONG else KINDS[args.what](count)
        # Drawn when they are asked, and let go when they are marked: the pages of all would fill the memory.
        exams, asking = tee(drawn)
        conversations = (asked(exam.pictures, exam.question, processor, pages=exam.pages) for exam in asking)
        said = says(open_model(args.model), processor, conversations, heldout.ANSWER_TOKENS)
        figures = right_answers(exams, said)
    length = {"window": args.window} if args.what in LONG else {}
    print(json.dumps({"what": args.what, **length, "model": args.model, **figures}))


if __name__ == "__main__":
    main()
