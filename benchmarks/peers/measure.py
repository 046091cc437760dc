"""Measures one peer in this process and prints each figure as a line of JSON, named as ``kimi-vl bench`` names it.

    python measure.py decoder SHIM.so MODEL.gguf --depth 0 4096 16384 --requests 8
    python measure.py experts SHIM.so MODEL.gguf              how evenly tokens are spread over experts
    python measure.py pictures SHIM.so DECODER.gguf --tower TOWER.gguf --size 896x896

Depth is reached by writing the cached keys of a short prompt over and over into a saved state, which is then restored:
what attention costs does not depend on what the keys hold. Needs numpy, and of ours what waits for a quiet moment.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from kimi_vl.engine.quiet import quietly

_STEP = 512  # as shim.cpp has it
_SEED_TOKENS = 64
_TOGETHER_PROMPT = 128  # tokens of each of several requests at once
_MOST_LAYERS, _MOST_EXPERTS = 256, 1024
_MOST_PICTURE_TOKENS = 4096
_STATUS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file-backed"}
_RANDOM = np.random.default_rng(0)

_Figure = tuple[str, object, str, list[float], list[float]]  # name, at, unit, values, what others used meanwhile


class Peer:
    """``shim.cpp`` with arrays for pointers."""

    def __init__(self, shim: Path, model: Path) -> None:
        self._c = ctypes.CDLL(str(shim.resolve()))
        self._c.peer_open.restype = ctypes.c_void_p
        for name in ("peer_state_size", "peer_state", "peer_restore"):
            getattr(self._c, name).restype = ctypes.c_size_t
        self._c.peer_context.restype = ctypes.c_bool
        self._c.peer_counts.restype = ctypes.POINTER(ctypes.c_int32)
        self._peer = ctypes.c_void_p(self._c.peer_open(str(model).encode()))
        if not self._peer:
            raise SystemExit(f"{shim} cannot open {model}")
        self.vocabulary = int(self._c.peer_vocabulary(self._peer))

    def context(self, threads: int, tokens: int, *, sequences: int, flash: bool, counting: bool = False) -> None:
        """A new, empty cache, for ``tokens`` of all sequences together."""
        if not self._c.peer_context(self._peer, threads, tokens, sequences, flash, counting):
            raise SystemExit("the peer cannot make a context")

    def step(self, ids: np.ndarray, positions: np.ndarray, sequences: np.ndarray) -> None:
        """Runs up to 512 tokens, ``[tokens]`` each."""
        arrays = [np.ascontiguousarray(a, np.int32) for a in (ids, positions, sequences)]
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in arrays]
        if self._c.peer_step(self._peer, *pointers, len(ids)) != 0:
            raise SystemExit("the peer cannot run a step")

    def cut(self, sequence: int, tokens: int) -> None:
        """Forgets a sequence from ``tokens`` on."""
        self._c.peer_cut(self._peer, sequence, tokens)

    def state(self) -> bytes:
        """Sequence 0 of the cache."""
        state = np.empty(self._c.peer_state_size(self._peer), np.uint8)
        size = self._c.peer_state(self._peer, state.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(state)))
        return state[:size].tobytes()

    def restore(self, state: bytes) -> None:
        if self._c.peer_restore(self._peer, state, ctypes.c_size_t(len(state))) == 0:
            raise SystemExit("the peer cannot restore a state: does this version write it in another way?")

    def expert_counts(self, layer: int) -> np.ndarray:
        """How many tokens each expert was given, ``[1024]``."""
        return np.ctypeslib.as_array(self._c.peer_counts(self._peer, layer), (_MOST_EXPERTS,)).copy()


def stretched(state: bytes, tokens: int, wanted: int) -> bytes:
    """A saved sequence of ``tokens``, made ``wanted`` long by repeating its keys.

    The state is: counts that end with the number of tokens, position and sequences of each, two numbers, of which the
    second counts the layers, then for each layer a type (4 bytes), the bytes of a key (8) and the keys.
    """
    words = np.frombuffer(state[: len(state) // 4 * 4], "<u4")
    start = int(np.flatnonzero(words[:4] == tokens)[0]) + 1
    per_token = 2 + int(words[start + 1])
    meta = np.resize(words[start : start + per_token * tokens].reshape(tokens, per_token), (wanted, per_token))
    meta[:, 0] = np.arange(wanted)
    at = start + per_token * tokens
    layers = int(words[at + 1])
    parts = [words[: start - 1].tobytes(), np.uint32(wanted).tobytes(), meta.tobytes(), words[at : at + 2].tobytes()]
    here = 4 * (at + 2)
    for _ in range(layers):
        row = int(np.frombuffer(state, "<u8", 1, here + 4)[0])
        keys = np.frombuffer(state, np.uint8, row * tokens, here + 12).reshape(tokens, row)
        parts += [state[here : here + 12], np.resize(keys, (wanted, row)).tobytes()]
        here += 12 + row * tokens
    return b"".join([*parts, state[here:]])


def decoder(options: argparse.Namespace) -> Iterator[_Figure]:
    begun = time.perf_counter()
    peer = Peer(options.shim, options.model)
    peer.context(options.threads, 4096, sequences=1, flash=options.flash)
    _read(peer, 0, 1)
    yield "ready", "", "s", [time.perf_counter() - begun], []
    peer.cut(0, 0)
    _read(peer, 0, options.prompt)  # what is done only once is not counted below
    for depth in options.depth:
        _go_to(peer, options, depth)
        if depth <= options.deepest_prompt:
            yield _repeated(options, "prefill", depth, partial(_prompt, peer, options, depth))
        yield _repeated(options, "decode", depth, partial(_answer, peer, options, depth))
        for name, size in _resident().items():
            yield name, depth, "bytes", [size], []
    yield _repeated(options, "decode together", options.requests, _together(peer, options))


def _repeated(options: argparse.Namespace, name: str, at: int, measure: Callable[[], float]) -> _Figure:
    values, others = zip(*(quietly(measure, options.patience) for _ in range(options.repeat)), strict=True)
    return name, at, "tokens/s", list(values), list(others)


def _go_to(peer: Peer, options: argparse.Namespace, depth: int) -> None:
    """A cache that has ``depth`` tokens, and room for a prompt or answer."""
    peer.context(options.threads, depth + _SEED_TOKENS + options.prompt, sequences=1, flash=options.flash)
    if depth:
        _read(peer, 0, _SEED_TOKENS)
        deep = stretched(peer.state(), _SEED_TOKENS, depth)
        peer.cut(0, 0)
        peer.restore(deep)
    _read(peer, depth, 1)


def _prompt(peer: Peer, options: argparse.Namespace, depth: int) -> float:
    peer.cut(0, depth)
    return options.prompt / _read(peer, depth, options.prompt)


def _answer(peer: Peer, options: argparse.Namespace, depth: int) -> float:
    peer.cut(0, depth)
    return options.answer / sum(_read(peer, depth + n, 1) for n in range(options.answer))


def _together(peer: Peer, options: argparse.Namespace) -> Callable[[], float]:
    """Measures tokens a second of all sequences, their answers only."""
    count = options.requests
    each = -(-(_TOGETHER_PROMPT + options.answer) // 256) * 256
    peer.context(options.threads, count * each, sequences=count, flash=options.flash)

    def measure() -> float:
        for sequence in range(count):
            peer.cut(sequence, 0)
            _read(peer, 0, _TOGETHER_PROMPT, sequence)
        begun = time.perf_counter()
        for n in range(options.answer):
            where = np.full(count, _TOGETHER_PROMPT + n)
            peer.step(_RANDOM.integers(0, peer.vocabulary, count), where, np.arange(count))
        return count * options.answer / (time.perf_counter() - begun)

    return measure


def _read(peer: Peer, start: int, tokens: int, sequence: int = 0) -> float:
    """Seconds for random tokens from position ``start`` on."""
    ids = _RANDOM.integers(0, peer.vocabulary, tokens)
    begun = time.perf_counter()
    for first in range(0, tokens, _STEP):
        part = ids[first : first + _STEP]
        peer.step(part, start + first + np.arange(len(part)), np.full(len(part), sequence))
    return time.perf_counter() - begun


def _resident() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = dict(line.split(":") for line in lines if line.startswith(tuple(_STATUS)))
    return {name: int(sizes[field].split()[0]) * 1024.0 for field, name in _STATUS.items()}


def experts(options: argparse.Namespace) -> Iterator[_Figure]:
    """The most tokens that an expert of a layer is given, over the mean; a figure for all layers together."""
    peer = Peer(options.shim, options.model)
    peer.context(options.threads, 2 * _STEP, sequences=1, flash=options.flash, counting=True)
    _read(peer, 0, _STEP)
    loads = [peer.expert_counts(layer) for layer in range(_MOST_LAYERS)]
    most = max(load.sum() for load in loads)
    # the last layer runs for the last token alone
    loads = [load[: load.nonzero()[0][-1] + 1] for load in loads if load.sum() == most]
    yield "busiest expert over the mean", _STEP, "", [float(load.max() / load.mean()) for load in loads], []


def pictures(options: argparse.Namespace) -> Iterator[_Figure]:
    c = ctypes.CDLL(str(options.shim.resolve()))
    for name in ("encoder_open", "encoder_prepare"):
        getattr(c, name).restype = ctypes.c_void_p
    paths = [str(path).encode() for path in (options.tower, options.model)]
    encoder = ctypes.c_void_p(c.encoder_open(*paths, options.threads, _MOST_PICTURE_TOKENS))
    if not encoder:
        raise SystemExit(f"{options.shim} cannot open {options.tower}")
    for size in options.size:
        width, height = (int(side) for side in size.split("x"))
        pixels = _RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)
        prepared = c.encoder_prepare(encoder, width, height, pixels.ctypes.data_as(ctypes.c_void_p))

        def measure(prepared: int = prepared, tokens: int = width * height // 28**2) -> float:
            begun = time.perf_counter()
            if c.encoder_run(encoder, ctypes.c_void_p(prepared)) != tokens:
                raise SystemExit(f"a picture did not give {tokens} tokens")
            return time.perf_counter() - begun

        seconds, others = quietly(measure, options.patience)
        yield "picture encoder", size, "s", [seconds], [others]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["decoder", "experts", "pictures"])
    parser.add_argument("shim", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depth", type=int, nargs="+", default=[0])
    parser.add_argument("--deepest-prompt", type=int, default=4096)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--answer", type=int, default=32)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for others to leave the cores")
    parser.add_argument("--flash", action="store_true")
    parser.add_argument("--tower", type=Path)
    parser.add_argument("--size", nargs="+", default=[])
    options = parser.parse_args()
    measures = {"decoder": decoder, "experts": experts, "pictures": pictures}
    for name, at, unit, values, others in measures[options.what](options):
        print(json.dumps({"name": name, "at": str(at), "unit": unit, "values": values, "others": others}), flush=True)


if __name__ == "__main__":
    main()
