"""What one more token of an answer adds to a step: ``python benchmarks/speculation.py FOLDER [--depth N]``.

FOLDER holds 4-bit weights. Random ones choose their experts evenly and anew for every token, so that a token costs the
most that it can; neighbouring tokens of real text share experts.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from kimi_vl.engine.engine import Engine
from kimi_vl.engine.pages import PAGE
from kimi_vl.engine.weights import Segment


def seconds(engine: Engine, tokens: int, depth: int, cache: torch.Tensor) -> float:
    """Of one step that reads ``tokens`` tokens of one answer, after ``depth`` others."""
    model = engine.model
    segment = Segment(tuple(range(cache.shape[1])), depth, tokens, is_prompt=False)
    ids = torch.randint(model.config.text_config.vocab_size, (tokens,))
    began = time.perf_counter()
    model.logits(model.run(model.embed(ids), [segment], cache))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--depth", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=9)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    engine = Engine.from_pretrained(arguments.folder)
    cache = engine.model.new_cache(-(-(arguments.depth + 16) // PAGE)).normal_()
    counts = (1, 2, 3, 5, 9)
    # in turn, so that what else the machine does meanwhile meets all alike
    taken = [[seconds(engine, n, arguments.depth, cache) for n in counts] for _ in range(arguments.repeat + 1)][1:]
    one = statistics.median(row[0] for row in taken)
    print(f"{arguments.folder}, depth {arguments.depth}, {torch.get_num_threads()} threads")
    for i, n in enumerate(counts):
        median = statistics.median(row[i] for row in taken)
        added = f", {(median / one - 1) / (n - 1):.2f} of the first for each more" if n > 1 else ""
        print(f"{n} tokens: {1000 * median:.0f} ms{added}")


if __name__ == "__main__":
    main()
