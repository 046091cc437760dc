"""The architecture of a Kimi-VL as frozen dataclasses, to and from the official ``config.json``.

In: a parsed ``config.json``. Out: :class:`KimiVLConfig`, checked. Knows nothing of tensors, files or pictures.
Field names and values are those of the official checkpoint (Kimi-VL-A3B-Instruct, revision 398eede).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

_Part = TypeVar("_Part", "TextConfig", "MoonViTConfig")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _at_least(least: int, owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not _is_count(value) or value < least:
            raise ValueError(f"config.json: {name} must be a whole number of at least {least}, not {value!r}")


def _real(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
            raise ValueError(f"config.json: {name} must be a number of at least 0, not {value!r}")


@dataclass(frozen=True)
class MoonViTConfig:
    """MoonViT, the native-resolution vision tower (report, section 2.1)."""

    patch_size: int = 14
    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    init_pos_emb_height: int = 64
    init_pos_emb_width: int = 64
    merge_kernel_size: tuple[int, int] = (2, 2)

    def __post_init__(self) -> None:
        _at_least(
            1,
            self,
            "patch_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "init_pos_emb_height",
            "init_pos_emb_width",
        )
        if self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError(
                f"config.json: vision hidden_size {self.hidden_size} over {self.num_attention_heads} heads must give a "
                "head size divisible by 4, since half of each head's pairs turn with x and half with y"
            )
        kernel = self.merge_kernel_size
        if not isinstance(kernel, tuple) or len(kernel) != 2 or not all(_is_count(n) and n >= 1 for n in kernel):
            raise ValueError(f"config.json: merge_kernel_size must be two whole numbers, not {kernel!r}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def merged_size(self) -> int:
        """Width of one merged token: all patches of a merge block side by side."""
        return self.hidden_size * self.merge_kernel_size[0] * self.merge_kernel_size[1]


@dataclass(frozen=True)
class TextConfig:
    """The decoder: multi-head latent attention and a sparse mixture of experts (DeepSeek-V3 form)."""

    vocab_size: int = 163840
    hidden_size: int = 2048
    intermediate_size: int = 11264
    moe_intermediate_size: int = 1408
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    n_shared_experts: int = 2
    n_routed_experts: int = 64
    num_experts_per_tok: int = 6
    routed_scaling_factor: float = 2.446
    norm_topk_prob: bool = True
    n_group: int = 1
    topk_group: int = 1
    first_k_dense_replace: int = 1
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    rms_norm_eps: float = 1e-5
    rope_theta: float = 800000.0
    max_position_embeddings: int = 131072
    aux_loss_alpha: float = 0.001
    initializer_range: float = 0.02
    bos_token_id: int = 163584
    eos_token_id: int = 163585
    pad_token_id: int = 163839

    def __post_init__(self) -> None:
        _at_least(
            1,
            self,
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "moe_intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "n_shared_experts",
            "n_routed_experts",
            "num_experts_per_tok",
            "n_group",
            "topk_group",
            "kv_lora_rank",
            "qk_nope_head_dim",
            "qk_rope_head_dim",
            "v_head_dim",
            "max_position_embeddings",
        )
        _at_least(0, self, "first_k_dense_replace", "bos_token_id", "eos_token_id", "pad_token_id")
        _real(self, "routed_scaling_factor", "rms_norm_eps", "aux_loss_alpha", "initializer_range", "rope_theta")
        if not isinstance(self.norm_topk_prob, bool):
            raise ValueError(f"config.json: norm_topk_prob must be true or false, not {self.norm_topk_prob!r}")
        if self.rope_theta < 1:
            raise ValueError(f"config.json: rope_theta must be at least 1, not {self.rope_theta!r}")
        if self.qk_rope_head_dim % 2:
            raise ValueError(f"config.json: qk_rope_head_dim must be even, not {self.qk_rope_head_dim}")
        if self.n_routed_experts % self.n_group or self.topk_group > self.n_group:
            raise ValueError(
                f"config.json: {self.n_routed_experts} experts cannot form {self.n_group} equal groups "
                f"of which {self.topk_group} are kept"
            )
        reachable = self.n_routed_experts // self.n_group * self.topk_group
        if self.num_experts_per_tok > reachable:
            raise ValueError(
                f"config.json: num_experts_per_tok {self.num_experts_per_tok} is more than "
                f"the {reachable} experts a token can reach"
            )

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def is_moe_layer(self, index: int) -> bool:
        return index >= self.first_k_dense_replace


# Where other programs find the official classes, since a folder that we write holds no code.
_OFFICIAL_CODE = "moonshotai/Kimi-VL-A3B-Instruct"

# What the decoder here does in one way only: another value would silently be another model.
_FIXED_TEXT = {
    "q_lora_rank": None,
    "rope_scaling": None,
    "attention_bias": False,
    "hidden_act": "silu",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "num_nextn_predict_layers": 0,
}


@dataclass(frozen=True)
class KimiVLConfig:
    """A whole Kimi-VL: both towers and the id that stands for one merged patch in a text."""

    text_config: TextConfig = TextConfig()
    vision_config: MoonViTConfig = MoonViTConfig()
    media_placeholder_token_id: int = 163605
    torch_dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        _at_least(0, self, "media_placeholder_token_id")
        if self.media_placeholder_token_id >= self.text_config.vocab_size:
            raise ValueError(
                f"config.json: media_placeholder_token_id {self.media_placeholder_token_id} "
                f"is outside the vocabulary of {self.text_config.vocab_size}"
            )
        if self.torch_dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"config.json: torch_dtype must be float32, bfloat16 or float16, not {self.torch_dtype!r}")

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> KimiVLConfig:
        """Reads a parsed ``config.json``.

        Raises ``ValueError`` naming the field when it describes another kind of model.
        """
        if raw.get("model_type") != "kimi_vl":
            raise ValueError(f"config.json: model_type is {raw.get('model_type')!r}, not 'kimi_vl'")
        text, vision = raw.get("text_config"), raw.get("vision_config")
        if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
            raise ValueError("config.json: text_config and vision_config must both be there")
        for name, only in _FIXED_TEXT.items():
            value = text.get(name, only)
            if value != only:
                raise ValueError(f"config.json: {name}={value!r} is not supported, only {only!r}")
        if text.get("num_key_value_heads", text.get("num_attention_heads")) != text.get("num_attention_heads"):
            raise ValueError("config.json: num_key_value_heads must equal num_attention_heads")
        kernel = vision.get("merge_kernel_size")
        if isinstance(kernel, list):
            vision = {**vision, "merge_kernel_size": tuple(kernel)}
        # transformers 5 writes the base into rope_parameters and the dtype into dtype
        rope = text.get("rope_parameters")
        if isinstance(rope, Mapping):
            if rope.get("rope_type", "default") != "default":
                raise ValueError(f"config.json: rope_type={rope['rope_type']!r} is not supported, only 'default'")
            text = {"rope_theta": rope.get("rope_theta", TextConfig.rope_theta), **text}
        top: dict[str, Any] = {"torch_dtype": raw.get("torch_dtype") or raw.get("dtype") or cls.torch_dtype}
        if "media_placeholder_token_id" in raw:
            top["media_placeholder_token_id"] = raw["media_placeholder_token_id"]
        return cls(text_config=_pick(TextConfig, text), vision_config=_pick(MoonViTConfig, vision), **top)

    def to_dict(self) -> dict[str, Any]:
        """The ``config.json`` that the official classes read back."""
        text = asdict(self.text_config)
        vision = asdict(self.vision_config)
        vision["merge_kernel_size"] = list(self.vision_config.merge_kernel_size)
        shared = {"torch_dtype": self.torch_dtype}
        return {
            "architectures": ["KimiVLForConditionalGeneration"],
            "model_type": "kimi_vl",
            "auto_map": {
                "AutoConfig": f"{_OFFICIAL_CODE}--configuration_kimi_vl.KimiVLConfig",
                "AutoModel": f"{_OFFICIAL_CODE}--modeling_kimi_vl.KimiVLForConditionalGeneration",
                "AutoModelForCausalLM": f"{_OFFICIAL_CODE}--modeling_kimi_vl.KimiVLForConditionalGeneration",
            },
            "ignore_index": -100,
            "media_placeholder_token_id": self.media_placeholder_token_id,
            "pad_token_id": self.text_config.pad_token_id,
            "tie_word_embeddings": False,
            "vocab_size": self.text_config.vocab_size,
            **shared,
            "text_config": {
                **text,
                **_FIXED_TEXT,
                "num_key_value_heads": self.text_config.num_attention_heads,
                "seq_aux": True,
                "use_cache": True,
                **shared,
            },
            "vision_config": {"model_type": "moonvit", **vision, **shared},
        }


def _pick(kind: type[_Part], raw: Mapping[str, Any]) -> _Part:
    return kind(**{field.name: raw[field.name] for field in fields(kind) if field.name in raw})


def a3b() -> KimiVLConfig:
    """Kimi-VL-A3B: 15.96 B parameters in the decoder, 0.417 B in MoonViT, 0.031 B in the projector."""
    return KimiVLConfig()


def nano() -> KimiVLConfig:
    """The same architecture at 19 M parameters, over a vocabulary of 3,840 ranks and 256 special ids."""
    return KimiVLConfig(
        text_config=TextConfig(
            vocab_size=4096,
            hidden_size=256,
            intermediate_size=768,
            moe_intermediate_size=128,
            num_hidden_layers=8,
            num_attention_heads=8,
            n_shared_experts=2,
            n_routed_experts=8,
            num_experts_per_tok=2,
            kv_lora_rank=64,
            qk_nope_head_dim=32,
            qk_rope_head_dim=16,
            v_head_dim=32,
            max_position_embeddings=131072,
            bos_token_id=3840,
            eos_token_id=3841,
            pad_token_id=4095,
        ),
        vision_config=MoonViTConfig(
            patch_size=8,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=8,
            num_attention_heads=4,
            init_pos_emb_height=32,
            init_pos_emb_width=48,
        ),
        media_placeholder_token_id=3861,
    )
