"""Which layouts a cluster could train a model with: those that fit, the fastest first, and what would if none does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kimi_vl.config import KimiVLConfig
from kimi_vl.train.plan.devices import DEVICES, Device, divisors
from kimi_vl.train.plan.piece import Step
from kimi_vl.train.plan.planned import REACHED, Plan, plan
from kimi_vl.train.scale.layout import Layout

# Of a device's memory. What CUDA, NCCL and the gaps between tensors take is assumed to be the rest.
ROOM = 0.92
# Fewer tokens of a row are not worth a process.
_LEAST_TOKENS = 1024
_WAYS = ("nothing", "cheap", "layers")


@dataclass(frozen=True)
class Wanted:
    """What is to be trained, and on what."""

    devices: int
    kind: str  # one of DEVICES
    tokens: int  # of a step
    length: int  # tokens of a sample
    picture_share: float = 0.0
    picture_tokens: int = 1024
    reached: float = REACHED

    def __post_init__(self) -> None:
        if self.kind not in DEVICES:
            raise ValueError(f"there is no device {self.kind!r} among {', '.join(DEVICES)}")
        if self.tokens < self.length:
            raise ValueError(
                f"a step of {self.tokens:,} tokens has no room for a sample of {self.length:,}: "
                "give it more tokens, or a shorter context"
            )
        if not 0 <= self.picture_share < 1:
            raise ValueError(f"the share of pictures must be at least 0 and below 1, not {self.picture_share:g}")
        if self.picture_share and self.picture_tokens > self.length:
            raise ValueError(
                f"a picture of {self.picture_tokens:,} tokens is longer than a sample of {self.length:,}: "
                "ask for longer samples, or for smaller pictures"
            )
        if not 0 < self.reached <= 1:
            raise ValueError(f"the share of the peak that is reached must be above 0, 1 at most, not {self.reached:g}")

    @property
    def device(self) -> Device:
        return DEVICES[self.kind]


def fits(found: Plan, device: Device) -> bool:
    return found.memory.peak <= ROOM * device.memory


def ways(config: KimiVLConfig, wanted: Wanted) -> list[Plan]:
    """Every layout and what is recomputed, in as few pieces as fit, or in as many as can be: what fits, fastest first.

    Raises: ``ValueError`` if no layout has a sample for each group of processes.
    """
    found = [_in_pieces(config, wanted, layout, what) for layout in _layouts(config, wanted) for what in _WAYS]
    if not found:
        raise ValueError(
            f"a step of {wanted.tokens:,} tokens is too short for {wanted.devices} devices, "
            f"each of which wants {_LEAST_TOKENS:,} tokens or a sample of its own"
        )
    device = wanted.device
    return sorted(
        found, key=lambda one: (not fits(one, device), -one.tokens_per_second if fits(one, device) else one.memory.peak)
    )


def _layouts(config: KimiVLConfig, wanted: Wanted) -> Iterator[Layout]:
    for context in divisors(wanted.devices):
        if context > 1 and wanted.length < context * _LEAST_TOKENS:
            continue
        layout = Layout(wanted.devices, context)
        if not step_of(wanted, layout).samples:
            continue
        for experts in divisors(wanted.devices):
            if config.text_config.n_routed_experts % experts == 0:
                yield replace(layout, expert_parallel=experts)


def step_of(wanted: Wanted, layout: Layout) -> Step:
    """With as many samples for each group of processes, about as many as are wanted."""
    groups = layout.processes // layout.context_parallel
    samples = round(wanted.tokens / wanted.length / groups) * groups
    return Step(samples, wanted.length, wanted.picture_share, wanted.picture_tokens)


def _in_pieces(config: KimiVLConfig, wanted: Wanted, layout: Layout, what: str) -> Plan:
    step, found = step_of(wanted, layout), None
    for pieces in step.pieces(layout):
        found = plan(config, step, layout, recompute=what, pieces=pieces, device=wanted.device, reached=wanted.reached)
        if fits(found, wanted.device):
            break
    assert found is not None
    return found


def instead(config: KimiVLConfig, wanted: Wanted) -> list[Wanted]:
    """Where nothing fits: more devices, larger ones or shorter samples, each alone, that do."""
    larger = [replace(wanted, kind=kind) for kind in DEVICES if DEVICES[kind].memory > wanted.device.memory]
    more = [replace(wanted, devices=wanted.devices * 2**n) for n in range(1, 7)]
    shorter = [replace(wanted, length=wanted.length // 2**n) for n in range(1, 7) if wanted.length >> n]
    found = []
    for others in (larger, more, shorter):
        found += [other for other in others if _any_fits(config, other)][:1]
    return found


def _any_fits(config: KimiVLConfig, wanted: Wanted) -> bool:
    try:
        return fits(ways(config, wanted)[0], wanted.device)
    except ValueError:
        return False
