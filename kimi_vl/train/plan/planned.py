"""What a step takes of one process: bytes by what they are for, and seconds.

    config, layout, step, recompute, device ─→ Plan

Time is that of a model of overlap. Within a piece weights and gradients of one layer travel while another is computed,
so that the longer of both counts; places of experts and context are waited for. Muon's step comes after the last piece,
its exchange before and after its products. Whatever is bound by a device's memory, Python's own time, and processes
that wait for one another because their samples differ, are in the share of its peak that a device reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

from kimi_vl.config import KimiVLConfig
from kimi_vl.train.plan.activations import Activations, activations
from kimi_vl.train.plan.devices import Device
from kimi_vl.train.plan.piece import Step, piece_of
from kimi_vl.train.plan.traffic import Transfer, sharing, transfers
from kimi_vl.train.plan.units import Units, units
from kimi_vl.train.plan.work import Work, muon_work, work
from kimi_vl.train.scale.layout import Layout

# An assumption, to be replaced by what a run reaches: nobody has run the whole model on a cluster with this code.
REACHED = 0.3
# As kimi_vl.train.scale.owners has it.
AT_A_TIME = 2**27

_NUMBER = 2  # bytes of a bfloat16
_WIDE = 4  # of a float32


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    weights: int  # in float32; of a process that is alone in bfloat16 too
    moments: int  # Muon's momentum, AdamW's two moments
    gradients: int  # that add up over the pieces
    root: int  # embeddings, head and other weights that are whole through a piece, and their gradients
    layers: int  # weights that are whole at a time, those that come next, gradients on their way
    activations: int
    working: int  # while a layer goes backwards
    logits: int
    muon: int  # directions and updates, and matrices that are whole at a time
    pieces: int

    @property
    def held(self) -> int:
        return self.weights + self.moments

    @property
    def peak(self) -> int:
        """Of three moments: the last layer goes backwards, the root's gradients leave, the optimizer steps."""
        before = self.gradients if self.pieces > 1 else 0
        learning = self.activations + max(self.working, self.logits)
        backward = max(before + learning, self.gradients) + self.root + max(self.layers, self.root // 2)
        return self.held + max(backward, self.gradients + self.muon)


@dataclass(frozen=True)
class Seconds:
    """Of a step. ``weights`` hide behind ``compute`` or the other way round."""

    compute: float
    weights: float
    experts: float
    context: float
    muon_exchange: float
    muon_compute: float

    @property
    def total(self) -> float:
        waited = self.experts + self.context + self.muon_exchange + self.muon_compute
        return max(self.compute, self.weights) + waited


@dataclass(frozen=True)
class Plan:
    layout: Layout
    recompute: str
    step: Step
    pieces: int
    memory: Memory
    work: Work  # of one process, all pieces
    transfers: tuple[Transfer, ...]
    seconds: Seconds

    @property
    def tokens_per_second(self) -> float:
        return self.step.tokens / self.seconds.total

    def days(self, tokens: float) -> float:
        return tokens / self.tokens_per_second / 86400


def plan(
    config: KimiVLConfig,
    step: Step,
    layout: Layout,
    *,
    recompute: str,
    pieces: int,
    device: Device,
    reached: float = REACHED,
) -> Plan:
    """``pieces`` must be one of ``step.pieces(layout)``; ``reached`` is the share of the device's peak."""
    laid_out = units(config, layout)
    piece = piece_of(config, step, layout, pieces)
    kept = activations(config, piece, recompute, spread=layout.expert_parallel > 1)
    done = work(config, piece, recompute)
    done = Work(pieces * done.products, pieces * done.tower_attention, pieces * done.decoder_attention)
    sent = transfers(config, laid_out, layout, piece, pieces, recompute)

    def on_the_way(*kinds: str) -> float:
        return sum(transfer.seconds(device) for transfer in sent if transfer.kind in kinds)

    speed = device.flops * reached
    return Plan(
        layout=layout,
        recompute=recompute,
        step=step,
        pieces=pieces,
        memory=memory(laid_out, layout, kept, pieces),
        work=done,
        transfers=tuple(sent),
        seconds=Seconds(
            compute=done.total / speed,
            weights=on_the_way("weights", "gradients"),
            experts=on_the_way("experts"),
            context=on_the_way("context"),
            muon_exchange=on_the_way("muon"),
            muon_compute=muon_work(laid_out) / speed,
        ),
    )


def memory(units: Units, layout: Layout, kept: Activations, pieces: int) -> Memory:
    here, muon = units.here, units.here_of_muon
    is_alone = layout.processes == 1
    return Memory(
        weights=here * (_WIDE + (_NUMBER if is_alone else 0)),
        moments=_WIDE * (muon + 2 * (here - muon)),
        gradients=here * (_NUMBER if is_alone else _WIDE),
        root=0 if is_alone else 2 * _NUMBER * units.root.numbers,
        layers=0 if is_alone else _layers(units),
        activations=kept.kept,
        working=kept.working,
        logits=kept.logits,
        muon=_alone(units) if is_alone else _exchange(units),
        pieces=pieces,
    )


def _layers(units: Units) -> int:
    """A layer's weights and gradients, the weights of the next unit, the last one's gradients in float32."""
    most = 0
    for layer in units.layers:
        together = [layer]
        if layer is units.layers[-1]:
            together += units.experts
        largest = max(unit.numbers for unit in together)
        most = max(most, 2 * _NUMBER * sum(unit.numbers for unit in together) + (_NUMBER + _WIDE) * largest)
    return most


def _exchange(units: Units) -> int:
    """Directions and updates of all; of a portion what is sent and comes back, twice whole, and Newton and Schulz."""
    portion = max(min(numbers, AT_A_TIME) for _, numbers in sharing(units))
    return 2 * _WIDE * units.here_of_muon + 20 * max(portion, _largest(units))


def _alone(units: Units) -> int:
    """Gradients in float32, directions, updates; of the shape that there is most of, what Newton and Schulz need."""
    of_shape: dict[tuple[int, ...], int] = {}
    for unit in units:
        for weight in unit.weights:
            if weight.muon:
                of_shape[weight.shape] = of_shape.get(weight.shape, 0) + unit.times * weight.numbers
    return _WIDE * units.here + 2 * _WIDE * units.here_of_muon + 11 * max(of_shape.values())


def _largest(units: Units) -> int:
    return max(weight.numbers // weight.count for unit in units for weight in unit.weights if weight.muon)
