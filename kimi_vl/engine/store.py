"""A 4-bit checkpoint on disk: its layout, and the way back into memory.

    config.json                        the official one, with quantization_config {quant_method, version}
    vision.safetensors                 MoonViT and projector under their official names, bfloat16
    layer-00.safetensors …             one decoder layer each
    ends.safetensors                   embeddings, last norm and head
    tokenizer and preprocessor files   as they were
    report.json                        bytes and errors by kind of tensor, and how near answers are if that was checked

A matrix NAME is stored as ``NAME.blocks`` and ``NAME.row_scale`` (see :mod:`kimi_vl.engine.int4`), the experts of a
layer as one stack. ``kv_b_proj`` is cut into heads: ``.mix`` (its value rows), ``.key`` (its key rows, transposed)
and ``.upright`` (``.key`` once more, not transposed). Embeddings, head and ``.upright`` are two matrices each, of
which the second, ``NAME.rest``, holds in 4 bits what the first left over: 8.5 bits a weight. Norms, router and
correction bias are float32 under their official names.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kimi_vl.checkpoint import place, read_json
from kimi_vl.config import KimiVLConfig, TextConfig
from kimi_vl.engine import layout
from kimi_vl.engine.int4 import BLOCK_BYTES, BLOCK_COLUMNS, BLOCK_ROWS, Int4Matrix
from kimi_vl.engine.weights import FeedForwardWeights, LatentAttentionWeights, RoutedWeights, SwiGLUWeights
from kimi_vl.model.attention import KV_A_LAYERNORM_EPS, rope_angles
from kimi_vl.model.projector import KimiVLMultiModalProjector
from kimi_vl.model.vision import MoonViT
from kimi_vl.precision import fast_dtype

DECODER = "language_model.model"


def is_quantized(folder: Path) -> bool:
    """Whether a folder is in this layout.

    Raises: ``ValueError`` if it is quantised in another way, or has no ``config.json``.
    """
    return layout.is_quantized(read_json(folder / "config.json"), folder)


@dataclass(frozen=True, eq=False)
class Ends:
    """What stands before and behind the layers. The second of each pair is what the first leaves over."""

    embed: tuple[Int4Matrix, Int4Matrix]  # [V, D]
    norm: Tensor  # [D]
    head: tuple[Int4Matrix, Int4Matrix]  # [V, D]


Layer = tuple[LatentAttentionWeights, FeedForwardWeights]


@dataclass(frozen=True, eq=False)
class DecoderWeights:
    """The decoder in 4 bits."""

    layers: list[Layer]
    ends: Ends


def read_decoder(folder: Path, config: KimiVLConfig) -> DecoderWeights:
    """Reads all but the picture side.

    Raises: ``ValueError`` naming the file for what is missing, left over, of a wrong size, or no numbers.
    """
    layers = [read_layer(folder, config, index) for index in range(config.text_config.num_hidden_layers)]
    return DecoderWeights(layers, read_ends(folder, config))


def read_layer(folder: Path, config: KimiVLConfig, index: int) -> Layer:
    """Raises as :func:`read_decoder`."""
    text, prefix = config.text_config, f"{DECODER}.layers.{index}"
    with _File(folder / layout.layer_file(index)) as file:
        return _attention(file, prefix, text), _feed_forward(file, prefix, text, index)


def read_ends(folder: Path, config: KimiVLConfig) -> Ends:
    """Raises as :func:`read_decoder`."""
    text = config.text_config
    size = (text.vocab_size, text.hidden_size)
    embed, head = f"{DECODER}.embed_tokens", "language_model.lm_head"
    with _File(folder / layout.ENDS) as file:
        return Ends(
            embed=file.pair(embed, *size),
            norm=file.floats(f"{DECODER}.norm.weight", text.hidden_size),
            head=file.pair(head, *size),
        )


def read_vision(folder: Path, config: KimiVLConfig) -> tuple[MoonViT, KimiVLMultiModalProjector]:
    """The picture side, in bfloat16, or float32 where the processor has no bfloat16.

    Raises: ``ValueError`` naming the file for what is missing, left over, of a wrong size, or no numbers.
    """
    with torch.device("meta"):
        modules = nn.ModuleDict(
            {"vision_tower": MoonViT(config.vision_config), "multi_modal_projector": KimiVLMultiModalProjector(config)}
        )
    dtype = fast_dtype(torch.device("cpu"))
    with _File(folder / layout.VISION) as file:
        for name, planned in modules.state_dict().items():
            place(modules, name, file.take(name, torch.bfloat16, *planned.shape).to(dtype))
    modules.eval().requires_grad_(False)
    tower, projector = modules["vision_tower"], modules["multi_modal_projector"]
    assert isinstance(tower, MoonViT) and isinstance(projector, KimiVLMultiModalProjector)
    return tower, projector


def _attention(file: _File, prefix: str, text: TextConfig) -> LatentAttentionWeights:
    heads, width, rank, rope = text.num_attention_heads, text.hidden_size, text.kv_lora_rank, text.qk_rope_head_dim
    attn = f"{prefix}.self_attn"
    return LatentAttentionWeights(
        norm=file.floats(f"{prefix}.input_layernorm.weight", width),
        latent_norm=file.floats(f"{attn}.kv_a_layernorm.weight", rank),
        frequency=rope_angles(torch.ones(1), text)[0],
        q=file.matrix(f"{attn}.q_proj", heads * text.qk_head_dim, width),
        latent=file.matrix(f"{attn}.kv_a_proj_with_mqa", rank + rope, width),
        o=file.matrix(f"{attn}.o_proj", width, heads * text.v_head_dim),
        mix=file.matrix(f"{attn}.kv_b_proj.mix", text.v_head_dim, rank, heads),
        key=file.matrix(f"{attn}.kv_b_proj.key", rank, text.qk_nope_head_dim, heads),
        upright=file.pair(f"{attn}.kv_b_proj.upright", text.qk_nope_head_dim, rank, heads),
        eps=text.rms_norm_eps,
        latent_eps=KV_A_LAYERNORM_EPS,
    )


def _feed_forward(file: _File, prefix: str, text: TextConfig, index: int) -> FeedForwardWeights:
    width, inner, experts = text.hidden_size, text.moe_intermediate_size, text.n_routed_experts

    def swiglu(name: str, size: int, *stack: int) -> SwiGLUWeights:
        return SwiGLUWeights(
            gate=file.matrix(f"{name}.gate_proj", size, width, *stack),
            up=file.matrix(f"{name}.up_proj", size, width, *stack),
            down=file.matrix(f"{name}.down_proj", width, size, *stack),
        )

    norm = file.floats(f"{prefix}.post_attention_layernorm.weight", width)
    mlp = f"{prefix}.mlp"
    if not text.is_moe_layer(index):
        return FeedForwardWeights(norm, text.rms_norm_eps, swiglu(mlp, text.intermediate_size), None)
    routed = RoutedWeights(
        router=file.floats(f"{mlp}.gate.weight", experts, width),
        bias=file.floats(f"{mlp}.gate.e_score_correction_bias", experts),
        experts=swiglu(f"{mlp}.experts", inner, experts),
        chosen=text.num_experts_per_tok,
        groups=text.n_group,
        kept_groups=text.topk_group,
        normalize=text.norm_topk_prob,
        scale=text.routed_scaling_factor,
    )
    shared = swiglu(f"{mlp}.shared_experts", inner * text.n_shared_experts)
    return FeedForwardWeights(norm, text.rms_norm_eps, shared, routed)


class _File:
    """One safetensors file, copied into memory of large pages, whose tensors are then taken one by one.

    Raises: ``ValueError`` if it cannot be read, or at the end if it holds what nobody took.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                self._tensors = _in_large_pages({name: file.get_tensor(name) for name in names})
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read as safetensors: {error}") from error

    def __enter__(self) -> _File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._tensors:
            raise ValueError(
                f"{self._path} holds tensors that its config.json does not ask for: {sorted(self._tensors)}"
            )

    def take(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        tensor = self._tensors.pop(name, None)
        if tensor is None:
            raise ValueError(f"{self._path}: {name} is missing")
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(f"{self._path}: {name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}")
        if tensor.is_floating_point() and not torch.linalg.vector_norm(tensor).isfinite():
            raise ValueError(f"{self._path}: {name} is not finite: the file is broken, quantise again")
        return tensor

    def floats(self, name: str, *shape: int) -> Tensor:
        return self.take(name, torch.float32, *shape)

    def matrix(self, name: str, rows: int, columns: int, *stack: int) -> Int4Matrix:
        r, c = -(-rows // BLOCK_ROWS), -(-columns // BLOCK_COLUMNS)
        blocks = self.take(f"{name}.blocks", torch.uint8, *stack, r, c, BLOCK_BYTES)
        row_scale = self.take(f"{name}.row_scale", torch.float32, *stack, r * BLOCK_ROWS)
        if not row_scale.any() and not name.endswith(".rest"):  # nothing may be left over
            raise ValueError(f"{self._path}: {name} is zero throughout: the file is broken, quantise again")
        return Int4Matrix(blocks, row_scale, rows, columns)

    def pair(self, name: str, rows: int, columns: int, *stack: int) -> tuple[Int4Matrix, Int4Matrix]:
        return self.matrix(name, rows, columns, *stack), self.matrix(f"{name}.rest", rows, columns, *stack)


def _in_large_pages(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors, each from a cache line of its own, in memory that is asked to be of 2 MB pages.

    Weights are read from end to end in each step; with pages of 4 kB a core spends much of that time on finding them.
    """
    places: dict[str, int] = {}
    size = 0
    for name, tensor in tensors.items():
        places[name] = size
        size += -(-tensor.nbytes // 64) * 64
    memory = mmap.mmap(-1, max(size, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    copies = {}
    for name, tensor in tensors.items():
        place = whole[places[name] : places[name] + tensor.nbytes]
        place.copy_(tensor.contiguous().view(-1).view(torch.uint8))
        copies[name] = place.view(tensor.dtype).view(tensor.shape)
    return copies
