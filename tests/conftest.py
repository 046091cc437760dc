"""What several tests stand on: the golden files, and small random models that are unlike one another."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from safetensors.torch import load_file
from torch import Tensor

from kimi_vl.checkpoint import load_model, read_config
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine.backend import backend
from kimi_vl.engine.model import EngineModel
from kimi_vl.engine.quantize import quantize
from kimi_vl.hub import NANO
from kimi_vl.model.kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.model.moe import Router
from tests.serving import Server, serving

# The same examples in every run: a red test is the change's fault, and never the draw's.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# Where several processes share the cores, torch's threads would wait for each other in each other's way.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts something behind it lets it ignore Ctrl-C, and all that it starts in turn.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_CONFIG = read_config(GOLDEN)

# Half the size of the golden model, for tests that run it many times.
SMALL_CONFIG = KimiVLConfig(
    text_config=replace(GOLDEN_CONFIG.text_config, vocab_size=64, bos_token_id=60, eos_token_id=61, pad_token_id=63),
    vision_config=replace(GOLDEN_CONFIG.vision_config, init_pos_emb_height=4, init_pos_emb_width=6),
    media_placeholder_token_id=59,
    torch_dtype="float32",
)


def random_model(
    seed: int = 0, *, config: KimiVLConfig = SMALL_CONFIG, std: float = 0.3, dtype: torch.dtype = torch.float32
) -> KimiVLForConditionalGeneration:
    """A model whose weights are large enough for every part to matter, the correction bias included."""
    wide = replace(config, text_config=replace(config.text_config, initializer_range=std))
    model = KimiVLForConditionalGeneration(wide)
    model.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        assert name.endswith("e_score_correction_bias")
        buffer.normal_(0.0, 0.2, generator=generator)
    model.to(dtype)
    for module in model.modules():
        if isinstance(module, Router):
            module.e_score_correction_bias = module.e_score_correction_bias.float()
    return model.eval()


def random_pixels(grids: list[tuple[int, int]], seed: int = 0, patch: int = 14) -> tuple[Tensor, Tensor]:
    """Patches [L, 3, patch, patch] in -1 … 1 and grids [N, 2], as the processor gives them."""
    patches = sum(h * w for h, w in grids)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(patches, 3, patch, patch, generator=generator) * 2 - 1
    return pixels, torch.tensor(grids, dtype=torch.int64).reshape(-1, 2)


@pytest.fixture(scope="session")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "golden.safetensors")


@pytest.fixture(scope="session")
def golden_model() -> KimiVLForConditionalGeneration:
    """Shared by all tests: none may change it."""
    return load_model(GOLDEN)


@pytest.fixture(scope="session")
def nano4_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano in 4 bits."""
    folder = tmp_path_factory.mktemp("quantised") / "nano4"
    quantize(NANO, folder, backend())
    return folder


@pytest.fixture(scope="session")
def nano4(nano4_folder: Path) -> EngineModel:
    return EngineModel.from_folder(nano4_folder, backend())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Nano as it is served."""
    with serving(tmp_path_factory.mktemp("server"), "--limit", "fetch_private=true") as running:
        yield running


@pytest.fixture(scope="session")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Nano as if it thought first: its marks are forced, and what stands between them is what it happens to say."""
    options = ("--thinking", "--thinking-budget", "12", "--name", "thinker")
    with serving(tmp_path_factory.mktemp("thinker"), *options) as running:
        yield running
