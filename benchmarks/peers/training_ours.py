"""Times our step as the training loop does it, samples packed end to end, reading left out; prints JSON.

python training_ours.py SAMPLES CONFIG --dtype bfloat16 --threads 2 --steps 2 --patience 60
"""

from __future__ import annotations

import torch
from torch import Tensor
from training_step import LEARNING_RATE, arguments, load_samples, measure

from kimi_vl.config import KimiVLConfig
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.patches import ImageProcessorConfig
from kimi_vl.train.data.packing import pack
from kimi_vl.train.learning.balance import loads_of, update_correction_bias
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.optim.muon_adamw import MuonAdamW


def main() -> None:
    options = arguments().parse_args()
    torch.set_num_threads(options.threads)
    model = KimiVLForConditionalGeneration(KimiVLConfig.from_dict(options.config))
    model.init_weights(0)
    learner = Learner(model.to(getattr(torch, options.dtype)), ImageProcessorConfig(), reading=0.0)
    learner.train()
    optimizer = MuonAdamW(learner)
    batch = pack(load_samples(options.samples))

    def step() -> Tensor:
        learned = learner(batch, batch.totals)
        learned.loss.backward()
        optimizer.step(LEARNING_RATE)
        update_correction_bias(model, loads_of(learned.routings), 1e-3)
        text: Tensor = learned.figures["text"]
        return text

    measure(step, model, len(batch.input_ids) + len(batch.pixels if batch.pixels is not None else ()), options)


if __name__ == "__main__":
    main()
