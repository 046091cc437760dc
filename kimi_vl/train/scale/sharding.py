"""Lays a pupil out over processes: experts and tokens first, then every matrix by rows (FSDP2).

In: a pupil that holds nothing yet (on torch's meta device). Out: the same, whose parameters are ``DTensor``s in float32
that come together, in the dtype to compute in, where a layer runs, and whose gradients are summed. Knows nothing of
stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils._python_dispatch import _disable_current_modes

from kimi_vl.config import KimiVLConfig
from kimi_vl.model.decoder import DecoderLayer
from kimi_vl.model.vision import MoonViT, MoonVitEncoderLayer
from kimi_vl.train.data.packing import Batch
from kimi_vl.train.learning.balance import moe_layers
from kimi_vl.train.learning.image_text import Block
from kimi_vl.train.learning.learned import Pupil
from kimi_vl.train.learning.learner import Learner
from kimi_vl.train.scale.context import share_of, spread_context
from kimi_vl.train.scale.experts import spread_experts
from kimi_vl.train.scale.layout import Layout

_LAYERS = (MoonVitEncoderLayer, DecoderLayer, Block)


def lay_out(pupil: Pupil, layout: Layout, device: torch.device, dtype: torch.dtype) -> None:
    """Raises ``ValueError`` if the model or the stage does not fit the layout."""
    model = pupil.model
    layout.check(model.config.text_config)
    everybody = init_device_mesh(device.type, (layout.processes,))
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    shard: Callable[..., FSDPModule] = partial(fully_shard, mp_policy=precision)
    if layout.expert_parallel > 1:
        sizes = layout.processes // layout.expert_parallel, layout.expert_parallel
        meshes = init_device_mesh(device.type, sizes, mesh_dim_names=("same", "other"))
        for moe in moe_layers(model):
            spread_experts(moe, meshes["other"].get_group())
            shard(moe.experts, mesh=meshes["same"])
            _unseen_hooks(moe.experts)
    if layout.context_parallel > 1:
        if not isinstance(pupil, Learner):
            raise ValueError("context_parallel: the vision stage has no rows to share out; set it to 1")
        spread_context(pupil, _context_group(layout))
    tower = model.vision_tower
    tower.forward = partial(_all_at_once, tower)  # type: ignore[method-assign]
    for module in list(pupil.modules()):
        if isinstance(module, _LAYERS):
            shard(module, mesh=everybody)
    # What is used first and last, or once, comes together once a step.
    shard(pupil, mesh=everybody, reshard_after_forward=False)
    for module in pupil.modules():
        if isinstance(module, FSDPModule):
            # Losses are shares of the step's already (Totals): their gradients are summed.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            # Nobody here may have chosen an expert that somebody else did (H3).
            module.set_reduce_scatter_unused_params(True, recurse=False)


def _unseen_hooks(module: nn.Module) -> None:
    """Has what FSDP does before and after ``module`` go unseen by a layer that keeps some products.

    That counts operations within the layer, which must be the same when it is computed again. The experts' weights
    may be there by then.
    """
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key, hook in hooks.items():
            hooks[key] = partial(_unseen, hook)


def _unseen(hook: Callable[..., Any], *given: Any) -> Any:
    with _disable_current_modes():
        return hook(*given)


def _context_group(layout: Layout) -> dist.ProcessGroup:
    size = layout.context_parallel
    group: dist.ProcessGroup
    group, _ = dist.new_subgroups(size)
    return group


def _all_at_once(tower: MoonViT, pixel_values: Tensor, image_grid_hws: Tensor) -> Tensor:
    """As many passes in every process: one. Who has no picture looks at a blank one, and keeps nothing of it."""
    grids = tower.check_grids(pixel_values, image_grid_hws)
    if grids:
        return tower.encode(pixel_values, grids)
    height, width = tower.merge_kernel_size
    blank = pixel_values.new_zeros(height * width, *pixel_values.shape[1:])
    return tower.encode(blank, [(height, width)])[:0]


def cut_for(layout: Layout, rank: int, config: KimiVLConfig) -> Callable[[Batch], Batch]:
    """What a process makes of the batches that its group draws."""
    vision = config.vision_config
    patch, merged = vision.patch_size, math.prod(vision.merge_kernel_size)

    def cut(batch: Batch) -> Batch:
        if batch.pixels is None:
            batch = replace(batch, pixels=torch.empty(0, 3, patch, patch, dtype=torch.uint8))
        if layout.context_parallel == 1:
            return batch
        process, placeholder = rank % layout.context_parallel, config.media_placeholder_token_id
        return share_of(batch, process, layout.context_parallel, placeholder=placeholder, merged=merged)

    return cut
