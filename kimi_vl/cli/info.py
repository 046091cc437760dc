"""``kimi-vl info``: what a model is and costs, from its ``config.json`` alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_vl.cli import options
from kimi_vl.cli.progress import calm_downloads
from kimi_vl.config import KimiVLConfig
from kimi_vl.footprint import BYTES_PER_PARAMETER, Footprint, footprint, in_bytes
from kimi_vl.hub import resolve

if TYPE_CHECKING:
    from kimi_vl.patches import ImageProcessorConfig, PatchGrid

_PICTURE_SETTINGS = "preprocessor_config.json"


@dataclass(frozen=True)
class SizedPicture:
    name: str
    size: tuple[int, int]  # width, height


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An alias, a folder or a hub id.", show_default=False)],
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--picture", metavar="PATH", help="Count the tokens of a picture; repeatable.", show_default=False
        ),
    ] = None,
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="WxH", help="The same for a size in pixels; repeatable.", show_default=False),
    ] = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
    as_json: options.Json = False,
) -> None:
    """Show what a model is, and what it and pictures cost."""
    sized = [*_measure(pictures or []), *(parse_size(text) for text in sizes or [])]
    calm_downloads()
    folder = resolve(model, ("config.json", _PICTURE_SETTINGS), revision=revision, offline=offline)
    config = read_config_file(folder / "config.json")
    counts = footprint(config)
    settings, source, grids = None, "", []
    if sized:
        from kimi_vl.patches import plan_grid

        settings, source = picture_settings(folder / _PICTURE_SETTINGS)
        grids = [plan_grid(*picture.size, settings) for picture in sized]
    if as_json:
        print(json.dumps(_as_dict(model, config, counts, source, sized, grids), ensure_ascii=False))
        return
    sections = [
        ("architecture", _architecture(config)),
        ("parameters", _parameters(counts)),
        ("memory", _memory(counts)),
    ]
    if settings is not None:
        sections.append((f"pictures, by {source}", _costs(sized, grids)))
    print(model)
    for title, rows in sections:
        print(f"\n{title}")
        width = max(len(label) for label, _ in rows)
        for label, text in rows:
            print(f"  {label:{width}}  {text}")


def read_config_file(path: Path) -> KimiVLConfig:
    """Raises ``ValueError`` if the file is missing, no JSON or another model's."""
    return KimiVLConfig.from_dict(read_json(path))


def in_numbers(count: int, largest: int) -> str:
    """``0.417 B``; in billions if ``largest``, which stands beside it, is."""
    size, unit = (10**9, "B") if largest >= 10**9 else (10**6, "M")
    return f"{count / size:.{2 if count >= size else 3}f} {unit}"


def _measure(paths: Sequence[str]) -> list[SizedPicture]:
    from kimi_vl.media import load_picture

    # decoded in full: the orientation may turn it, and a broken picture has no cost
    return [SizedPicture(path, load_picture(path).size) for path in paths]


def parse_size(text: str) -> SizedPicture:
    """``1920x1080``, width and height in pixels.

    Raises ``ValueError`` if it is none.
    """
    match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text)
    if match is None:
        raise ValueError(f"--size {text} is no size: give width and height in pixels, such as 1920x1080")
    return SizedPicture(text, (int(match[1]), int(match[2])))


def picture_settings(path: Path) -> tuple[ImageProcessorConfig, str]:
    from kimi_vl.patches import ImageProcessorConfig

    if path.is_file():
        return ImageProcessorConfig.from_dict(read_json(path)), f"its {_PICTURE_SETTINGS}"
    return ImageProcessorConfig(), f"the released settings, since it has no {_PICTURE_SETTINGS}"


def _architecture(config: KimiVLConfig) -> list[tuple[str, str]]:
    text, vision = config.text_config, config.vision_config
    dense = min(text.first_k_dense_replace, text.num_hidden_layers)
    down, across = vision.merge_kernel_size
    return [
        (
            "language model",
            f"{text.num_hidden_layers} layers ({dense} dense, {text.num_hidden_layers - dense} of experts), "
            f"width {text.hidden_size}",
        ),
        (
            "attention",
            f"{text.num_attention_heads} heads of {text.qk_nope_head_dim} + {text.qk_rope_head_dim}, "
            f"values {text.v_head_dim}, latent {text.kv_lora_rank}",
        ),
        (
            "experts",
            f"{text.n_routed_experts} of width {text.moe_intermediate_size}, {text.num_experts_per_tok} a token, "
            f"and {text.n_shared_experts} shared; dense width {text.intermediate_size}",
        ),
        ("vocabulary", f"{text.vocab_size:,} ids, context {text.max_position_embeddings:,} tokens"),
        (
            "MoonViT",
            f"{vision.num_hidden_layers} layers, width {vision.hidden_size}, {vision.num_attention_heads} heads, "
            f"inner width {vision.intermediate_size}, patches of {vision.patch_size} pixels",
        ),
        ("projector", f"{across} x {down} patches a token, {vision.merged_size} to {text.hidden_size}"),
        ("stored as", config.torch_dtype),
    ]


def _parameters(counts: Footprint) -> list[tuple[str, str]]:
    values = {
        "language model": counts.language_model,
        "MoonViT": counts.vision_tower,
        "projector": counts.projector,
        "total": counts.total,
        "active per token": counts.active,
        "  without embeddings": counts.active_without_embeddings,
    }
    return [(label, f"{in_numbers(count, counts.total):>8}  {count:>14,}") for label, count in values.items()]


def _memory(counts: Footprint) -> list[tuple[str, str]]:
    rows = [(f"weights, {name}", f"{in_bytes(counts.weight_bytes(name)):>8}") for name in BYTES_PER_PARAMETER]
    cache = in_bytes(1000 * counts.cache_per_token * 2)
    return [*rows, ("cache, bfloat16", f"{cache:>8}  each 1,000 tokens")]


def _costs(pictures: Sequence[SizedPicture], grids: Sequence[PatchGrid]) -> list[tuple[str, str]]:
    return [
        (
            picture.name,
            f"{_by(picture.size)} → {_by(grid.resized_size)} → {grid.w} x {grid.h} patches → {grid.tokens:,} tokens",
        )
        for picture, grid in zip(pictures, grids, strict=True)
    ]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _as_dict(
    model: str,
    config: KimiVLConfig,
    counts: Footprint,
    picture_settings: str,
    pictures: Sequence[SizedPicture],
    grids: Sequence[PatchGrid],
) -> dict[str, Any]:
    return {
        "model": model,
        "config": config.to_dict(),
        "parameters": {**asdict(counts), "total": counts.total},
        "weight_bytes": {name: counts.weight_bytes(name) for name in BYTES_PER_PARAMETER},
        "cache_bytes_per_token": {"bfloat16": 2 * counts.cache_per_token},
        "picture_settings": picture_settings or None,
        "pictures": [
            {"name": picture.name, "size": picture.size, **asdict(grid)}
            for picture, grid in zip(pictures, grids, strict=True)
        ],
    }


def read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return raw
