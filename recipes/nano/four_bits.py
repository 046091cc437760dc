"""Which of nano's matrices lose by 4 bits: held-out lines, each read with its own text behind the picture.

    python -m recipes.nano.four_bits --count 1000                            all matrices, and each kind alone
    python -m recipes.nano.four_bits --twice kv_a_proj_with_mqa kv_b_proj    all, these kinds in twice 4 bits

The exact model runs with weights that went to 4 bits and back, so that nothing but weights differs. A row is the mean
KL divergence of the next token from the exact model's, how often both find the same token likeliest, and how many
lines have no token wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_vl import KimiVL, KimiVLProcessor
from kimi_vl.engine import int4
from kimi_vl.engine.backend import backend
from kimi_vl.processor import ModelInputs
from recipes.nano import questions
from recipes.nano.evaluate import asked
from recipes.nano.heldout import lines as heldout_lines

# parts of names, the more particular first
KINDS = ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "shared_experts", "mlp.experts", "mlp")


@dataclass(frozen=True)
class Line:
    inputs: ModelInputs
    answer: Tensor  # [T], with the end of turn
    wanted: Tensor  # [T, V] log-probabilities of the exact model


def kind_of(name: str) -> str | None:
    """None for what is not put in 4 bits here: embeddings, head, norms, routers, the picture side."""
    if ".layers." not in name or "norm" in name or ".gate." in name or "e_score" in name:
        return None
    return next(kind for kind in KINDS if kind in name)


def there_and_back(weights: Tensor, *, twice: bool) -> Tensor:
    """A matrix [rows, columns] after a round trip through 4 bits."""
    first = int4.decode(backend().encode(weights.contiguous())[0])
    return first + there_and_back(weights - first, twice=False) if twice else first


def lossy(name: str, weights: Tensor, model: KimiVL, *, twice: bool) -> Tensor:
    if "kv_b_proj" not in name:
        return there_and_back(weights, twice=twice)
    # cut into heads as the engine has it, keys transposed
    text = model.config.text_config
    parts = []
    for head in weights.unflatten(0, (text.num_attention_heads, -1)):
        key, mix = head.split((text.qk_nope_head_dim, text.v_head_dim))
        parts += [there_and_back(key.T, twice=twice).T, there_and_back(mix, twice=twice)]
    return torch.cat(parts)


@torch.inference_mode()
def log_probabilities(model: KimiVL, inputs: ModelInputs, answer: Tensor) -> Tensor:
    """Of each token of an answer behind its prompt: [T, V]."""
    ids = torch.cat((inputs.input_ids, answer[:-1]))
    out = model.model(ids, [len(ids)], pixel_values=inputs.pixel_values, image_grid_hws=inputs.image_grid_hws)
    return out.logits[-len(answer) :].log_softmax(-1)


def report(label: str, model: KimiVL, lines: Collection[Line]) -> None:
    divergence = same = right = tokens = 0.0
    for line in lines:
        found = log_probabilities(model, line.inputs, line.answer)
        divergence += float((line.wanted.exp() * (line.wanted - found)).sum())
        same += float((found.argmax(-1) == line.wanted.argmax(-1)).sum())
        right += bool((found.argmax(-1) == line.answer).all())
        tokens += len(line.answer)
    print(f"{label:44} {divergence / tokens:.4f} {same / tokens:8.2%} {right / len(lines):8.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--twice", nargs="*", choices=KINDS, default=[])
    options = parser.parse_args()
    model, processor = KimiVL.from_pretrained("nano", dtype="float32"), KimiVLProcessor.from_pretrained("nano")
    exact = {name: weights.clone() for name, weights in model.model.state_dict().items()}
    lines = []
    for line in heldout_lines(options.count):
        inputs = asked([line.image], questions.READ[0], processor)
        answer = torch.tensor([*processor.tokenizer.encode(line.text), processor.tokenizer.im_end_id])
        lines.append(Line(inputs, answer, log_probabilities(model, inputs, answer)))

    def measure(label: str, is_lossy: Callable[[str], bool]) -> None:
        changed = {
            name: lossy(name, weights, model, twice=kind_of(name) in options.twice)
            if is_lossy(kind_of(name) or "")
            else weights
            for name, weights in exact.items()
        }
        model.model.load_state_dict(changed)
        report(label, model, lines)

    print(f"{'in 4 bits':44} {'KL':>6} {'the same':>8} {'right':>8}")
    measure("nothing", lambda kind: False)
    measure("all" + (f", twice {', '.join(options.twice)}" if options.twice else ""), lambda kind: kind in KINDS)
    if not options.twice:
        for one in KINDS:
            measure(one, lambda kind, one=one: kind == one)  # type: ignore[misc]


if __name__ == "__main__":
    main()
