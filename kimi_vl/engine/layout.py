"""How many bytes a 4-bit checkpoint holds, file by file, before there is one.

In: a :class:`KimiVLConfig`, or the folder. Out: bytes of tensors in each file. Arithmetic only: torch is not imported.
The layout is that of :mod:`kimi_vl.engine.store`, its matrices that of :mod:`kimi_vl.engine.int4`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kimi_vl.config import KimiVLConfig, TextConfig
from kimi_vl.footprint import footprint

METHOD = "kimi-vl-int4"
VERSION = 4
VISION, EMBEDDINGS, HEAD = "vision.safetensors", "embeddings.safetensors", "head.safetensors"


def layer_file(index: int) -> str:
    return f"layer-{index:02}.safetensors"


def is_quantized(config: Mapping[str, Any], name: str | Path) -> bool:
    """Whether a parsed ``config.json`` is that of a folder in this layout.

    Raises: ``ValueError`` if it is quantised in another way.
    """
    quantization = config.get("quantization_config")
    if quantization is None:
        return False
    if quantization != {"quant_method": METHOD, "version": VERSION}:
        raise ValueError(f"{name} is quantised in a way that is not known here ({quantization}): take the original")
    return True


def dense_twice(text: TextConfig) -> bool:
    """Whether dense layers have 8.5 bits a weight: where they are a large part of a model of few layers. Of 27 layers,
    one would cost each token 2 % more time for what nobody could measure."""
    return 10 * text.first_k_dense_replace >= text.num_hidden_layers


def planned_bytes(config: KimiVLConfig) -> dict[str, int]:
    """What ``kimi-vl quantize`` will write: bytes of the tensors of each file."""
    text, counts = config.text_config, footprint(config)
    table = 2 * _matrix(text.vocab_size, text.hidden_size)
    linear = _vision_matrices(config)
    rest = counts.vision_tower + counts.projector - sum(rows * columns for rows, columns in linear)
    return {
        VISION: 2 * sum(_matrix(rows, columns) for rows, columns in linear) + 2 * rest,
        EMBEDDINGS: table,
        **{layer_file(i): _attention(text) + _feed_forward(text, i) for i in range(text.num_hidden_layers)},
        HEAD: table + _floats(text.hidden_size),
    }


def stored_bytes(folder: Path, config: KimiVLConfig) -> dict[str, int]:
    """The same of a folder, as its files are; those that are not there are taken as planned."""
    return {name: _tensor_bytes(folder / name, planned) for name, planned in planned_bytes(config).items()}


def _tensor_bytes(path: Path, planned: int) -> int:
    """All but the head of a safetensors file, whose length its first 8 bytes tell."""
    try:
        with path.open("rb") as file:
            head = int.from_bytes(file.read(8), "little")
            return path.stat().st_size - 8 - head
    except FileNotFoundError:
        return planned
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


# ---- what a layer is made of ----


def _matrix(rows: int, columns: int, stack: int = 1) -> int:
    """Blocks of 16 rows × 128 columns, 1,088 bytes each, and a float32 for each row."""
    row_blocks, column_blocks = -(-rows // 16), -(-columns // 128)
    return stack * row_blocks * (column_blocks * 1088 + 16 * 4)


def _floats(count: int) -> int:
    return 4 * count


def _vision_matrices(config: KimiVLConfig) -> list[tuple[int, int]]:
    """Rows and columns of each."""
    vision = config.vision_config
    width, inner, merged = vision.hidden_size, vision.intermediate_size, vision.merged_size
    block = [(3 * width, width), (width, width), (inner, width), (width, inner)]
    return [*(vision.num_hidden_layers * block), (merged, merged), (config.text_config.hidden_size, merged)]


def _attention(text: TextConfig) -> int:
    heads, width, rank = text.num_attention_heads, text.hidden_size, text.kv_lora_rank
    return (
        _floats(width + rank)
        + _matrix(heads * text.qk_head_dim, width)
        + 2 * _matrix(rank + text.qk_rope_head_dim, width)
        + 2 * _matrix(width, heads * text.v_head_dim)
        + 2 * _matrix(text.v_head_dim, rank, heads)
        + 2 * _matrix(rank, text.qk_nope_head_dim, heads)
        + 2 * _matrix(text.qk_nope_head_dim, rank, heads)
    )


def _feed_forward(text: TextConfig, index: int) -> int:
    width, experts = text.hidden_size, text.n_routed_experts
    if not text.is_moe_layer(index):
        return _floats(width) + (2 if dense_twice(text) else 1) * _swiglu(width, text.intermediate_size)
    router = _floats(experts * (width + 1))
    shared = _swiglu(width, text.moe_intermediate_size * text.n_shared_experts)
    return _floats(width) + router + shared + _swiglu(width, text.moe_intermediate_size, experts)


def _swiglu(width: int, inner: int, stack: int = 1) -> int:
    return 2 * _matrix(inner, width, stack) + _matrix(width, inner, stack)
