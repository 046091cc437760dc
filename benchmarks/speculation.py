"""What guessing ahead costs and what it gives.

    python benchmarks/speculation.py cost FOLDER          what one more token of an answer adds to a step
    python benchmarks/speculation.py replay PROMPT ANSWER  the steps that a text would take as an answer to another

``cost`` runs 4-bit weights. Random ones choose their experts evenly and anew for each token, so that a token costs the
most that it can; neighbouring tokens of real text share experts. ``replay`` takes two text files and runs no model:
with the answer known, it counts what would have been guessed, and sums the time by ``TOKEN_COST``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.guess import TOKEN_COST, Guesses, how_many
from kimi_vl.engine.pages import PAGE
from kimi_vl.engine.weights import Segment
from kimi_vl.processor import KimiVLProcessor


def seconds(engine: Engine, tokens: int, depth: int, cache: torch.Tensor) -> float:
    """Of one step that reads ``tokens`` tokens of one answer, after ``depth`` others."""
    model = engine.model
    segment = Segment(tuple(range(cache.shape[1])), depth, tokens, is_prompt=False)
    ids = torch.randint(model.config.text_config.vocab_size, (tokens,))
    began = time.perf_counter()
    model.logits(model.run(model.embed(ids), [segment], cache))
    return time.perf_counter() - began


def cost(folder: str, depth: int, repeat: int) -> None:
    torch.manual_seed(0)
    engine = Engine.from_pretrained(folder)
    cache = engine.model.new_cache(-(-(depth + 16) // PAGE)).normal_()
    counts = (1, 2, 3, 5, 9)
    # in turn, so that what else the machine does meanwhile meets all alike
    taken = [[seconds(engine, n, depth, cache) for n in counts] for _ in range(repeat + 1)][1:]
    one = statistics.median(row[0] for row in taken)
    print(f"{folder}, depth {depth}, {torch.get_num_threads()} threads")
    for i, n in enumerate(counts):
        median = statistics.median(row[i] for row in taken)
        added = f", {(median / one - 1) / (n - 1):.2f} of the first for each more" if n > 1 else ""
        print(f"{n} tokens: {1000 * median:.0f} ms{added}")


def replay(prompt: Path, answer: Path) -> None:
    tokenizer = KimiVLProcessor.from_pretrained("nano").tokenizer
    before, coming = (tokenizer.encode(path.read_text(encoding="utf-8")) for path in (prompt, answer))
    guesses = Guesses(before or [tokenizer.bos_id], len(before) + len(coming) + 1)
    done = steps = read = 0
    while done < len(coming):
        room = min(EngineOptions.speculation, len(coming) - done - 1)
        guessed = guesses.next(room)[: how_many(guesses.share, 1)] if room else []
        right = 0
        while right < len(guessed) and guessed[right] == coming[done + right]:
            right += 1
        guesses.add(coming[done : done + right + 1])
        done += right + 1
        steps += 1
        read += len(guessed)
    times = len(coming) / (steps + TOKEN_COST * read)
    print(f"{len(coming)} tokens in {steps} steps, with {read} guesses: {times:.2f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of_cost = commands.add_parser("cost")
    of_cost.add_argument("folder")
    of_cost.add_argument("--depth", type=int, default=1024)
    of_cost.add_argument("--repeat", type=int, default=9)
    of_replay = commands.add_parser("replay")
    of_replay.add_argument("prompt", type=Path)
    of_replay.add_argument("answer", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "cost":
        cost(arguments.folder, arguments.depth, arguments.repeat)
    else:
        replay(arguments.prompt, arguments.answer)


if __name__ == "__main__":
    main()
