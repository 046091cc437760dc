"""Times transformers' DeepSeek-V3 decoder, which is Kimi-VL's, with few layers of random weights; prints JSON.

    python measure_transformers.py TEXT_CONFIG --layers 2 --threads 2

Runs in an environment of its own, with torch and transformers only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, DynamicCache

_PROMPT, _ANSWER, _REPEAT = 512, 16, 3


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=json.loads)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = _model(options.config, options.layers)
    ids = torch.randint(options.config["bos_token_id"], (1, _PROMPT + _ANSWER))
    prefill, decode = [], []
    for _ in range(1 + _REPEAT):
        cache = DynamicCache(config=model.config)
        begun = time.perf_counter()
        model(ids[:, :_PROMPT], cache=cache, use_cache=True, logits_to_keep=1)
        prefill.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        for n in range(_PROMPT, _PROMPT + _ANSWER):
            model(ids[:, n : n + 1], cache=cache, use_cache=True)
        decode.append((time.perf_counter() - begun) / _ANSWER)
    # the first of each warms up
    print(json.dumps({"prefill": statistics.median(prefill[1:]), "decode": statistics.median(decode[1:])}))


def _model(text: dict[str, object], layers: int) -> DeepseekV3ForCausalLM:
    known = {name: value for name, value in text.items() if name not in ("torch_dtype", "model_type", "rope_scaling")}
    config = DeepseekV3Config(**{**known, "num_hidden_layers": layers}, rope_interleave=True)
    with torch.device("meta"):
        model = DeepseekV3ForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.fill_(1.0)
        else:
            # large embeddings keep tokens apart, so that experts' load is even
            parameter.normal_(0.0, 10.0 if "embed_tokens" in name else 0.02, generator=generator)
    for name, buffer in model.named_buffers():
        if "inv_freq" not in name:
            buffer.zero_()
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model


if __name__ == "__main__":
    main()
