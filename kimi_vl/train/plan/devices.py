"""Accelerators that a plan may be for, and how fast bytes travel among them.

Figures are those of NVIDIA's data sheets (A100 80 GB SXM, H100 SXM, H200 SXM; DGX A100 and DGX H100 for the network):
bfloat16 without sparsity, NVLink in one direction, one network card of 200 or 400 Gbit/s a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# How much of its bandwidth a link gives to transfers of this size. An assumption: nothing here has measured it.
LINKS_REACHED = 0.7


@dataclass(frozen=True)
class Device:
    """One accelerator of a cluster. Bandwidths are bytes a second that it sends while it receives as many."""

    memory: int  # bytes
    flops: float  # bfloat16 operations a second
    inside: float  # bandwidth to the devices of its node
    across: float  # to those of other nodes
    of_node: int = 8  # devices of a node


DEVICES = {
    "a100": Device(memory=80 * 10**9, flops=312e12, inside=300e9, across=25e9),
    "h100": Device(memory=80 * 10**9, flops=989e12, inside=450e9, across=50e9),
    "h200": Device(memory=141 * 10**9, flops=989e12, inside=450e9, across=50e9),
}


@dataclass(frozen=True)
class Group:
    """Processes that exchange something: each ``apart``-th rank, so many of them."""

    processes: int
    apart: int = 1

    def in_node(self, device: Device) -> int:
        return max(1, min(self.processes, device.of_node // self.apart))


def ring_seconds(received: float, group: Group, device: Device) -> float:
    """All-gather, reduce-scatter: every device passes on what it gets, so that a node's cards share the way out."""
    here = group.in_node(device)
    bandwidth = device.inside if here == group.processes else min(device.inside, here * device.across)
    return received / (bandwidth * LINKS_REACHED)


def all_to_all_seconds(sent: float, group: Group, device: Device) -> float:
    """Everything goes straight from sender to receiver, to each as much; both ways are used at once."""
    if group.processes == 1:
        return 0.0
    outside = sent * (group.processes - group.in_node(device)) / (group.processes - 1)
    return max((sent - outside) / device.inside, outside / device.across) / LINKS_REACHED


def divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
