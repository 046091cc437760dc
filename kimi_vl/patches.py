"""RGB picture in, patches out: native-resolution resize, padding, normalisation, and the one count of tokens.

In: an RGB ``PIL.Image.Image``. Out: pixel values (L, 3, P, P) float32 and the :class:`PatchGrid` (L = h * w
patches of P x P pixels, in raster order). Knows nothing of files, text or the model. The steps and their
order are those of the official ``KimiVLImageProcessor``, with which the released weights were trained. Libraries are
imported when the first picture is cut: a grid is planned without them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image

_FILE = "preprocessor_config.json"
_OFFICIAL_CODE = "moonshotai/Kimi-VL-A3B-Instruct"

# the official code refuses 512 and more patches on a side
_SIDE_LIMIT = 512


@dataclass(frozen=True)
class ImageProcessorConfig:
    """The official ``preprocessor_config.json``. Defaults: the released Instruct and Thinking settings."""

    patch_size: int = 14
    in_token_limit: int = 4096  # patches before padding; 16384 in Thinking-2506
    merge_kernel_size: tuple[int, int] = (2, 2)
    pad_input: bool = True
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        for name in ("patch_size", "in_token_limit"):
            if not _is_count(getattr(self, name)):
                raise ValueError(f"{_FILE}: {name} must be a whole number of at least 1, not {getattr(self, name)!r}")
        if len(self.merge_kernel_size) != 2 or not all(map(_is_count, self.merge_kernel_size)):
            raise ValueError(f"{_FILE}: merge_kernel_size must be two numbers, not {self.merge_kernel_size!r}")
        if not isinstance(self.pad_input, bool):
            raise ValueError(f"{_FILE}: pad_input must be true or false, not {self.pad_input!r}")
        for name in ("image_mean", "image_std"):
            value = getattr(self, name)
            if len(value) != 3 or not all(isinstance(part, int | float) and math.isfinite(part) for part in value):
                raise ValueError(f"{_FILE}: {name} must be three numbers, not {value!r}")
        if min(self.image_std) <= 0:
            raise ValueError(f"{_FILE}: image_std must be above 0, not {self.image_std!r}")

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ImageProcessorConfig:
        """Reads a parsed ``preprocessor_config.json``.

        ``merge_kernel_size``, ``patch_size`` and ``in_token_limit`` may be missing, for the official defaults
        are ours. ``pad_input``, ``image_mean`` and ``image_std`` must be there, since the defaults of the
        official class (no padding, CLIP's mean and std) are not what any released model was trained with.

        Raises ``ValueError`` naming the field for a missing or impossible value or another kind of processor.
        """
        kind = raw.get("image_processor_type", "KimiVLImageProcessor")
        if kind != "KimiVLImageProcessor":
            raise ValueError(f"{_FILE}: image_processor_type is {kind!r}, not 'KimiVLImageProcessor'")
        for name in ("pad_input", "image_mean", "image_std"):
            if name not in raw:
                raise ValueError(f"{_FILE}: {name} is missing; the released models have {getattr(cls, name)!r}")
        known: dict[str, Any] = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        for name in ("merge_kernel_size", "image_mean", "image_std"):
            if not isinstance(known.get(name, ()), list | tuple):
                raise ValueError(f"{_FILE}: {name} must be a list, not {known[name]!r}")
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """The ``preprocessor_config.json`` that the official classes read back."""
        return {
            "image_processor_type": "KimiVLImageProcessor",
            "processor_class": "KimiVLProcessor",
            "auto_map": {
                "AutoImageProcessor": f"{_OFFICIAL_CODE}--image_processing_kimi_vl.KimiVLImageProcessor",
                "AutoProcessor": f"{_OFFICIAL_CODE}--processing_kimi_vl.KimiVLProcessor",
            },
            "patch_size": self.patch_size,
            "in_token_limit": self.in_token_limit,
            "merge_kernel_size": list(self.merge_kernel_size),
            "pad_input": self.pad_input,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
        }


@dataclass(frozen=True)
class PatchGrid:
    """What a picture of some size becomes. Sizes are (width, height) in pixels."""

    resized_size: tuple[int, int]
    padded_size: tuple[int, int]  # without pad_input: cropped
    h: int  # patches down
    w: int  # patches across
    tokens: int  # merged patches, which is placeholders in the text


def plan_grid(width: int, height: int, config: ImageProcessorConfig) -> PatchGrid:
    """The grid of a picture of ``width`` x ``height`` pixels, without touching a pixel.

    A picture over ``in_token_limit`` patches is scaled down (none is ever enlarged), then padded right and
    bottom to whole merge blocks; by the padding, and by rounding if one side is short, it may exceed the
    limit a little. Without ``pad_input`` it is cropped to whole patches instead.

    Raises ``ValueError`` for an empty picture, one with 512 or more patches on a side even after scaling,
    and, without ``pad_input``, one whose patches do not form whole merge blocks.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} x {height} has no pixels")
    size = config.patch_size
    patches = (width // size) * (height // size)
    new_width, new_height = width, height
    if patches > config.in_token_limit:
        scale = math.sqrt(config.in_token_limit / patches)
        # a line thinner than 1 / scale would vanish; the official code fails there
        new_width, new_height = max(1, int(width * scale)), max(1, int(height * scale))
    down, across = config.merge_kernel_size
    if config.pad_input:
        h = math.ceil(new_height / (size * down)) * down
        w = math.ceil(new_width / (size * across)) * across
    else:
        h, w = new_height // size, new_width // size
        if not h or not w or h % down or w % across:
            raise ValueError(
                f"a picture of {width} x {height} crops to {w} x {h} patches of {size} pixels, which do not "
                f"form whole blocks of {across} x {down}; set pad_input, as all released models do"
            )
    if max(h, w) >= _SIDE_LIMIT:
        raise ValueError(
            f"a picture of {width} x {height} needs {w} x {h} patches of {size} pixels, but a side must stay "
            f"under {_SIDE_LIMIT} patches ({_SIDE_LIMIT * size} pixels): cut it into pieces or scale it down"
        )
    return PatchGrid(
        resized_size=(new_width, new_height),
        padded_size=(w * size, h * size),
        h=h,
        w=w,
        tokens=h * w // (down * across),
    )


def patchify(
    image: Image.Image,
    config: ImageProcessorConfig,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> tuple[torch.Tensor, PatchGrid]:
    """Cuts an RGB picture into normalised patches.

    Returns pixel values (L, 3, P, P) float32, (value / 255 - mean) / std with padding as black, and the grid, L = h *
    w: that which :func:`plan_grid` gives for ``image.size``, unless a wish of :func:`fit` changes it. Raises
    ``ValueError`` as that does.
    """
    image, grid = fit(image, config, min_pixels=min_pixels, max_pixels=max_pixels)
    return cut(image.tobytes(), grid.h, grid.w, config), grid


def fit(
    image: Image.Image,
    config: ImageProcessorConfig,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> tuple[Image.Image, PatchGrid]:
    """An RGB picture, scaled and then padded or cropped to whole patches, and its grid.

    Two wishes that callers may have: a picture of more than ``max_pixels`` is scaled down to no more than them, one of
    fewer than ``min_pixels`` enlarged to as many. The model's own limit holds in any case. Raises ``ValueError`` for a
    wish that contradicts the other or that limit, for another mode, and as :func:`plan_grid` does.
    """
    from PIL import Image

    if image.mode != "RGB":
        raise ValueError(f"patches are cut from an RGB picture, not {image.mode}; load it with load_picture")
    size = _wished_size(*image.size, config, min_pixels=min_pixels, max_pixels=max_pixels)
    if size != image.size:
        plan_grid(*size, config)  # refuses what is too long before it is made
        image = image.resize(size, Image.Resampling.BICUBIC)
    grid = plan_grid(image.width, image.height, config)
    if grid.resized_size != image.size:
        image = image.resize(grid.resized_size, Image.Resampling.BICUBIC)
    width, height = grid.padded_size
    left = top = 0
    if not config.pad_input:
        # rounded half to even, as torchvision's centre crop
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    # beyond its edges a PIL crop is black, so this pads as well
    return image.crop((left, top, left + width, top + height)), grid


def _wished_size(
    width: int,
    height: int,
    config: ImageProcessorConfig,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> tuple[int, int]:
    """Width and height of a picture by a caller's wishes, before the model's limit. Raises ``ValueError`` as above."""
    for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)):
        if value is not None and not _is_count(value):
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    limit = config.in_token_limit * config.patch_size**2
    most = limit if max_pixels is None else min(limit, max_pixels)
    if min_pixels is not None and min_pixels > most:
        raise ValueError(f"min_pixels is {min_pixels}, over the limit of {most}")
    if most < min(limit, width * height):
        scale = math.sqrt(most / (width * height))
        return max(1, int(width * scale)), max(1, int(height * scale))
    if min_pixels is not None and width * height < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        return math.ceil(width * scale), math.ceil(height * scale)
    return width, height


def cut(pixels: bytes, h: int, w: int, config: ImageProcessorConfig) -> torch.Tensor:
    """Patches (h · w, 3, P, P) float32, normalised, of a fitted picture's RGB bytes (h · P, w · P, 3)."""
    return normalised(cut_bytes(pixels, h, w, config), config)


def cut_bytes(pixels: bytes, h: int, w: int, config: ImageProcessorConfig) -> torch.Tensor:
    """Patches (h · w, 3, P, P) uint8 of a fitted picture's RGB bytes (h · P, w · P, 3)."""
    import numpy as np
    import torch

    size = config.patch_size
    array = np.frombuffer(pixels, np.uint8).reshape(h, size, w, size, 3).transpose(0, 2, 4, 1, 3)  # (h, w, 3, P, P)
    return torch.from_numpy(np.ascontiguousarray(array)).view(h * w, 3, size, size)


def joined(patches: torch.Tensor, h: int, w: int) -> Image.Image:
    """The RGB picture that :func:`cut_bytes` cut into ``patches`` (h · w, 3, P, P) uint8."""
    from PIL import Image

    size = patches.shape[-1]
    rows = patches.view(h, w, 3, size, size).permute(0, 3, 1, 4, 2)  # (h, P, w, P, 3)
    return Image.fromarray(rows.reshape(h * size, w * size, 3).numpy())


def normalised(patches: torch.Tensor, config: ImageProcessorConfig) -> torch.Tensor:
    """Patches (L, 3, P, P) uint8 → float32 on the same device, (value / 255 - mean) / std."""
    import torch

    mean, std = (torch.tensor(x, device=patches.device).view(3, 1, 1) for x in (config.image_mean, config.image_std))
    return (patches.to(torch.float32) / 255 - mean) / std


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
