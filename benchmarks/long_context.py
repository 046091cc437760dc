"""A long prompt through the engine, in steps: its time and memory, and that of the answer behind it.

    python benchmarks/long_context.py                       nano in 4 bits, 100,000 tokens: some minutes
    python benchmarks/long_context.py --model FOLDER        any folder that kimi-vl quantize wrote

The cache is planned as layers × tokens × (rank + rope) × 2 bytes; what the process grows by is measured. Linux only.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from kimi_vl.engine.backend import backend
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.quantize import quantize
from kimi_vl.engine.request import Request
from kimi_vl.hub import NANO
from kimi_vl.sampling import SamplingParams


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def measure(folder: Path, tokens: int, answer: int, step_tokens: int) -> None:
    engine = Engine.from_pretrained(folder, options=EngineOptions(context=tokens + answer, step_tokens=step_tokens))
    text = engine.config.text_config
    r = random.Random(0)
    prompt = tuple(r.randrange(text.vocab_size // 2) for _ in range(tokens))

    def request(name: str, length: int) -> Request:
        return Request(name, prompt[:length], (), (), SamplingParams(max_new_tokens=answer), seed=0)

    engine.add(request("warm up", step_tokens))
    while engine.busy:
        engine.step()
    before = resident()
    engine.add(request("long", tokens))
    began = time.perf_counter()
    steps = 0
    while not engine.step():
        steps += 1
        if steps % max(1, tokens // step_tokens // 10) == 0:
            print(f"{steps * step_tokens:8} tokens read, {time.perf_counter() - began:7.1f} s", flush=True)
    read = time.perf_counter() - began
    began = time.perf_counter()
    said = 1
    while engine.busy:
        said += len(engine.step())
    each = (time.perf_counter() - began) / (said - 1)
    planned = text.num_hidden_layers * tokens * (text.kv_lora_rank + text.qk_rope_head_dim) * 2
    print(f"prompt of {tokens} tokens in steps of {step_tokens}: {read:.1f} s, {tokens / read:.0f} tokens/s")
    print(f"answer behind it: {1000 * each:.2f} ms a token")
    print(f"cache as planned: {planned / 1e6:.1f} MB; the process grew by {(resident() - before) / 1e6:.1f} MB")
    print(f"peak of all: {resident('VmHWM') / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder in 4 bits; nano if not given")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--answer", type=int, default=32)
    parser.add_argument("--step-tokens", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.model or Path(temporary) / "nano4"
        if options.model is None:
            quantize(NANO, folder, backend())
        measure(folder, options.tokens, options.answer, options.step_tokens)


if __name__ == "__main__":
    main()
