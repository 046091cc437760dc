"""Who holds what: how the processes of a run share out samples, tokens and experts.

Process r of W, with c processes to a row and e to a layer's experts (r counts from 0):

    samples   W / c groups, each of its own samples          r // c
    tokens    c processes, each some tokens of a row         r % c
    weights   all W, each some rows of every matrix
    experts   e processes, each some of a layer's experts    r % e; of these, W / e have the same and share their rows
"""

from __future__ import annotations

from dataclasses import dataclass

from kimi_vl.config import TextConfig


@dataclass(frozen=True)
class Layout:
    processes: int = 1
    context_parallel: int = 1
    expert_parallel: int = 1

    def __post_init__(self) -> None:
        for name in ("context_parallel", "expert_parallel"):
            size = getattr(self, name)
            if size < 1 or self.processes % size:
                raise ValueError(f"{name}: {self.processes} processes are not {size} each; start a multiple of {size}")

    def share_of_samples(self, process: int) -> tuple[int, int]:
        """Which share of a batch is its, and of how many."""
        return process // self.context_parallel, self.processes // self.context_parallel

    def check(self, config: TextConfig) -> None:
        """Raises ``ValueError`` if a layer's experts cannot be shared out evenly."""
        if config.n_routed_experts % self.expert_parallel:
            raise ValueError(
                f"expert_parallel: {config.n_routed_experts} experts are not cut evenly for {self.expert_parallel}"
            )
