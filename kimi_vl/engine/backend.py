"""Who does the arithmetic: the native library that suits this processor, or plain torch."""

from __future__ import annotations

import warnings
from functools import cache

import torch

from kimi_vl.engine.kernels import KINDS, Kernels
from kimi_vl.engine.reference import Reference

Backend = Kernels | Reference


@cache
def backend(threads: int | None = None) -> Backend:
    """The fastest that works here, with ``threads`` threads (as torch has, if not given).

    Says once if that is torch, which is far slower.
    """
    threads = threads or torch.get_num_threads()
    for kind in KINDS:
        try:
            return Kernels(kind, threads)
        except OSError:
            continue
    warnings.warn(
        "no native library fits this machine, so the engine computes in torch, many times slower: "
        "install a C compiler and then this package again",
        stacklevel=2,
    )
    return Reference(threads)
