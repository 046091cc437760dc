"""Which numbers this machine is quick with."""

from __future__ import annotations

import torch


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it, else float32: emulated, it takes ten times as long."""
    emulated = device.type == "cpu" and not torch.cpu.get_capabilities().get("avx512_bf16")
    return torch.float32 if emulated else torch.bfloat16
