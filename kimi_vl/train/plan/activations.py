"""What the forward pass leaves for the backward one, in bytes of one process.

Counted from the layers' code, operation by operation: a product keeps what comes into it, a norm its input in float32
and what its weight multiplies, SwiGLU four tensors of its inner width, the experts' outputs are weighted in float32.
Weights are bfloat16. ``attended`` is the width of a number within attention: 2 on a GPU, 4 where a CPU does it in
float32, on copies.
"""

from __future__ import annotations

from dataclasses import dataclass

from kimi_vl.config import KimiVLConfig, MoonViTConfig, TextConfig
from kimi_vl.train.plan.piece import Piece
from kimi_vl.train.plan.work import LOGITS_OF_A_PIECE, MOST_LOGITS

_NUMBER = 2  # bytes of a bfloat16
_WIDE = 4  # of a float32
_INDEX = 8


@dataclass(frozen=True)
class Activations:
    kept: int  # from the forward to the backward pass, logits apart
    working: int  # while the dearest layer goes backwards: what it computes again, and gradients
    logits: int  # at the head


def activations(config: KimiVLConfig, piece: Piece, recompute: str, *, spread: bool, attended: int = 2) -> Activations:
    """``recompute``: one of :data:`kimi_vl.train.recompute.RECOMPUTE`; ``spread``: experts are with several."""
    text, vision = config.text_config, config.vision_config
    dense = min(text.first_k_dense_replace, text.num_hidden_layers)
    sparse = text.num_hidden_layers - dense
    whole = _Layers(
        tower=_tower_layer(vision, piece, attended),
        dense=_attention(text, piece, attended) + _dense(text, piece),
        moe=_attention(text, piece, attended) + _moe(text, piece),
    )
    routing = _routing(text, piece)
    kept = whole
    if recompute == "layers":
        x = piece.tokens * text.hidden_size * _NUMBER
        kept = _Layers(piece.patches * vision.hidden_size * _NUMBER, x, x + routing)
    elif recompute == "cheap":
        products = _attention_products(text, piece, attended)
        kept = _Layers(
            tower=_tower_products(vision, piece, attended),
            dense=products + _dense_products(text, piece),
            moe=products + _moe_products(text, piece) + routing,
        )
    return Activations(
        kept=vision.num_hidden_layers * kept.tower + dense * kept.dense + sparse * kept.moe + _ends(config, piece),
        working=max(
            whole.tower - kept.tower + 2 * piece.patches * vision.intermediate_size * _NUMBER,
            whole.dense - kept.dense + 3 * piece.tokens * text.intermediate_size * _NUMBER + _gathering(text, piece),
            whole.moe - kept.moe + _places(text, piece, spread=spread) + _gathering(text, piece),
        ),
        logits=logits_bytes(text, piece.seen),
    )


@dataclass(frozen=True)
class _Layers:
    tower: int
    dense: int
    moe: int


def logits_bytes(text: TextConfig, seen: int) -> int:
    """Logarithms, their gradient and the logits' own, each in float32."""
    logits = seen * text.vocab_size
    return 3 * _WIDE * (logits if logits <= MOST_LOGITS else LOGITS_OF_A_PIECE)


# ---- all that a layer leaves ----


def _norm(width: int) -> int:
    """Of a token: input and scale in float32, what the weight multiplies, and what comes out."""
    return width * (_WIDE + 2 * _NUMBER) + _WIDE


def _attention(text: TextConfig, piece: Piece, attended: int) -> int:
    heads, width, rank = text.num_attention_heads, text.hidden_size, text.kv_lora_rank
    turns = 2 * 2 * text.qk_rope_head_dim // 2 * _WIDE  # cosines and sines, for queries and keys
    latents = rank * (_WIDE + _NUMBER) + _WIDE
    queries_and_out = 2 * heads * text.qk_head_dim * attended + heads * _WIDE
    here = _norm(width) + turns + latents + queries_and_out + heads * text.v_head_dim * _NUMBER
    keys_and_values = 2 * heads * text.qk_head_dim * attended
    if piece.row == piece.tokens:
        return piece.tokens * (here + rank * _NUMBER + keys_and_values)
    everyones = (rank + text.qk_rope_head_dim) * _NUMBER + _INDEX
    return piece.tokens * here + piece.row * everyones + piece.keys * (keys_and_values + _INDEX)


def _dense(text: TextConfig, piece: Piece) -> int:
    return piece.tokens * (_norm(text.hidden_size) + 4 * text.intermediate_size * _NUMBER)


def _routing(text: TextConfig, piece: Piece) -> int:
    """The router's choice, which the balance loss is of: of the whole row, if there is a longer one."""
    choice = text.n_routed_experts * _WIDE + text.num_experts_per_tok * (_INDEX + _WIDE)
    everyones = 0 if piece.row == piece.tokens else piece.row * choice
    return piece.tokens * choice + everyones + piece.row * (text.n_routed_experts + 2) * _WIDE


def _moe(text: TextConfig, piece: Piece) -> int:
    width, inner, chosen = text.hidden_size, text.moe_intermediate_size, text.num_experts_per_tok
    router = width * _WIDE + 2 * _WIDE + chosen * _WIDE
    places = chosen * (width * (_NUMBER + _WIDE) + 4 * inner * _NUMBER + 2 * _INDEX)
    shared = 4 * text.n_shared_experts * inner * _NUMBER
    weight = text.n_routed_experts * width * _WIDE
    return piece.tokens * (_norm(width) + router + places + shared) + weight + _routing(text, piece)


def _tower_layer(vision: MoonViTConfig, piece: Piece, attended: int) -> int:
    width, inner = vision.hidden_size, vision.intermediate_size
    norm = 2 * width * _NUMBER + 2 * _WIDE
    turns = 2 * 2 * vision.head_dim // 2 * _WIDE
    # On a GPU values stay within what queries, keys and values came in; else all is copied, and what is attended too.
    values = 3 * _NUMBER if attended == _NUMBER else attended + _NUMBER
    attention = width * (3 * attended + values) + vision.num_attention_heads * _WIDE
    return piece.patches * (2 * norm + turns + attention + 2 * inner * _NUMBER)


def _ends(config: KimiVLConfig, piece: Piece) -> int:
    """Beside the layers: pixels, the position table's shares, the projector, the last norm, and what the head sees."""
    text, vision = config.text_config, config.vision_config
    pixels = 3 * vision.patch_size**2 * _NUMBER + 16 * (2 * _INDEX + _WIDE)
    merged = 5 * vision.hidden_size * _NUMBER + 2 * _INDEX
    angles = text.qk_rope_head_dim // 2 * _WIDE
    states = text.hidden_size * (_WIDE + _NUMBER) + _WIDE + angles + 2 * _INDEX
    seen = piece.seen * text.hidden_size * _NUMBER
    return piece.patches * (pixels + merged) + piece.tokens * states + seen


# ---- what a layer leaves of which only products are kept ----


def _attention_products(text: TextConfig, piece: Piece, attended: int) -> int:
    """With what came into the layer."""
    heads, width = text.num_attention_heads, text.hidden_size
    latents = text.kv_lora_rank + text.qk_rope_head_dim
    here = (2 * width + latents + heads * text.qk_head_dim) * _NUMBER
    out = heads * (text.qk_head_dim * attended + _WIDE)
    expanded = heads * (text.qk_nope_head_dim + text.v_head_dim) * _NUMBER
    return piece.tokens * (here + out) + piece.row * expanded


def _dense_products(text: TextConfig, piece: Piece) -> int:
    return piece.tokens * (2 * text.intermediate_size + text.hidden_size) * _NUMBER


def _moe_products(text: TextConfig, piece: Piece) -> int:
    width, inner, chosen = text.hidden_size, text.moe_intermediate_size, text.num_experts_per_tok
    experts = chosen * (2 * inner + width) + 2 * text.n_shared_experts * inner + width
    return piece.tokens * (experts * _NUMBER + text.n_routed_experts * _WIDE)


def _tower_products(vision: MoonViTConfig, piece: Piece, attended: int) -> int:
    width, inner = vision.hidden_size, vision.intermediate_size
    products = (6 * width + inner) * _NUMBER  # with what came into the layer
    return piece.patches * (products + width * attended + vision.num_attention_heads * _WIDE)


# ---- what is there for a moment ----


def _places(text: TextConfig, piece: Piece, *, spread: bool) -> int:
    """The gradient of what experts gave, and its product with that, in float32; on its way, if they are elsewhere."""
    places = piece.tokens * text.num_experts_per_tok * text.hidden_size
    return places * (2 * _WIDE + (2 * _NUMBER if spread else 0))


def _gathering(text: TextConfig, piece: Piece) -> int:
    """Keys and values of the whole row, before each stretch of tokens takes those that it sees."""
    if piece.row == piece.tokens:
        return 0
    expanded = text.qk_nope_head_dim + text.v_head_dim + 2 * text.qk_head_dim
    return piece.row * text.num_attention_heads * expanded * _NUMBER
