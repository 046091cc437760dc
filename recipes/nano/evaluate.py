"""Measures nano on what it never saw: lines of a held-out book in held-out fonts, and a held-out emoji style.

    python -m recipes.nano.evaluate lines [--model FOLDER] [--count 1000]
    python -m recipes.nano.evaluate emoji [--model FOLDER]
    python -m recipes.nano.evaluate tesseract [--count 1000]     the same lines, read by Tesseract 5

Prints one JSON object: character error rate over all lines (edits / characters), or top-1 among 100 names.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from kimi_vl import KimiVL, KimiVLProcessor, Reply, SamplingParams
from kimi_vl.generate import prefill
from kimi_vl.model.attention import LatentCache
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.processor import ModelInputs
from recipes.nano import questions
from recipes.nano.evaluation import EVAL_NAMES
from recipes.nano.lines import LineSample, line_sample
from recipes.nano.scenes import heldout_emoji

SEED = 0


def edit_distance(a: str, b: str) -> int:
    """Insertions, deletions and substitutions between two strings (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def heldout_lines(count: int) -> list[LineSample]:
    return [line_sample(SEED, index, "heldout") for index in range(count)]


def character_error_rate(lines: Sequence[LineSample], read: Callable[[LineSample], str]) -> dict[str, float]:
    """Edits over characters, of all lines together. White space is compared as single blanks."""
    edits = characters = right = 0
    for line in lines:
        said, wanted = " ".join(read(line).split()), " ".join(line.text.split())
        distance = edit_distance(said, wanted)
        edits += distance
        characters += len(wanted)
        right += distance == 0
    return {
        "lines": len(lines),
        "characters": characters,
        "character_error_rate": edits / characters,
        "lines_right": right / len(lines),
    }


def nano_reader(model: KimiVL, processor: KimiVLProcessor) -> Callable[[LineSample], str]:
    params = SamplingParams(max_new_tokens=96)

    def read(line: LineSample) -> str:
        parts = [{"type": "image", "image": line.image}, {"type": "text", "text": questions.READ[0]}]
        return Reply(model, processor, [{"role": "user", "content": parts}], params).answer.text

    return read


def tesseract_reader(folder: Path) -> Callable[[LineSample], str]:
    """Tesseract told that the picture is one line, which is enlarged threefold: it likes capitals of 30 pixels."""

    def read(line: LineSample) -> str:
        path = folder / "line.png"
        image = line.image
        image.resize((3 * image.width, 3 * image.height)).save(path)
        command = ["tesseract", str(path), "-", "--psm", "7", "-l", "eng"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return read


@torch.inference_mode()
def name_log_likelihood(
    model: KimiVLForConditionalGeneration, inputs: ModelInputs, names: Sequence[Sequence[int]]
) -> list[float]:
    """Sum of log-probabilities of each answer's tokens after one prompt. Each has at least two, its end included."""
    cache = LatentCache(model.config.text_config, dtype=model.dtype, device=model.device)
    prompt = inputs.input_ids
    after = prefill(
        model, prompt, cache, pixel_values=inputs.pixel_values, image_grid_hws=inputs.image_grid_hws
    ).unsqueeze(0)
    scores = []
    for name in names:
        # The prompt is read once: what a name before it left in the cache is written over.
        cache.length = len(prompt)
        ids = torch.tensor(list(name))
        states = model.hidden(model.embed(ids[:-1]), torch.arange(len(ids) - 1) + len(prompt), cache).states
        logits = torch.cat((after, model.language_model.lm_head(states))).float()
        scores.append(float(logits.log_softmax(-1)[torch.arange(len(ids)), ids].sum()))
    return scores


def emoji_top1(model: KimiVL, processor: KimiVLProcessor) -> dict[str, float]:
    """For each of 100 names, the held-out drawing: is its own name, with the end of turn, the likeliest?"""
    tokenizer = processor.tokenizer
    names = [[*tokenizer.encode(name), tokenizer.im_end_id] for name in EVAL_NAMES]
    right = said = 0
    for index, name in enumerate(EVAL_NAMES):
        parts = [{"type": "image", "image": heldout_emoji(name)}, {"type": "text", "text": questions.NAME[0]}]
        messages = [{"role": "user", "content": parts}]
        scores = name_log_likelihood(model.model, processor(messages), names)
        right += max(range(len(names)), key=scores.__getitem__) == index
        said += Reply(model, processor, messages, SamplingParams(max_new_tokens=16)).answer.text == name
    return {"names": len(names), "top_1": right / len(names), "said_exactly": said / len(names)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["lines", "emoji", "tesseract"])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    if args.what == "tesseract":
        with tempfile.TemporaryDirectory() as folder:
            figures = character_error_rate(heldout_lines(args.count), tesseract_reader(Path(folder)))
    else:
        model, processor = KimiVL.from_pretrained(args.model), KimiVLProcessor.from_pretrained("nano")
        if args.what == "lines":
            figures = character_error_rate(heldout_lines(args.count), nano_reader(model, processor))
        else:
            figures = emoji_top1(model, processor)
    print(json.dumps({"what": args.what, "model": args.model, **figures}))


if __name__ == "__main__":
    main()
