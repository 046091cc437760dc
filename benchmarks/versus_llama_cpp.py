"""The engine beside llama.cpp, and ik_llama.cpp if there is a checkout, on the same sizes with random weights.

    python benchmarks/versus_llama_cpp.py                     builds and makes all that it needs (some hours, 45 GB)
    python benchmarks/versus_llama_cpp.py --ours FOLDER --ik CHECKOUT

Everyone runs in a process of their own, in turn, for as many rounds as asked; nothing else should run beside it.
llama.cpp is measured with flash attention and without, ik_llama.cpp with MLA in both forms (-mla 3), flash attention,
fused experts and run-time repacking. Both hold Q4_0 weights and a 16-bit cache, as we do. Answers of the peers are not
sampled, ours are. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from peers import building, ours
from peers.building import Built
from peers.figures import Figure, as_json, table

from kimi_vl.config import a3b

_HERE = Path(__file__).parent / "peers"
_Run = Callable[[], list[Figure]]


def main() -> None:
    options = _options()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    python = building.environment(work)
    peers = [building.llama_cpp(work, python)]
    if options.ik is not None:
        peers.append(building.ik_llama_cpp(work, python, options.ik))
    decoder, frame, tower = _gguf_files(work, python)
    folder = ours.spread(options.ours or ours.make(work), work / "ours")

    print("busiest expert's load over the mean, of 512 tokens, the worst layer", flush=True)
    print(f"  ours: {max(ours.busiest_experts(folder, options.threads)):.2f}", flush=True)
    for peer in peers:
        (load,) = _peer("experts", peer.decoder, decoder, "--flash", *_common(options))
        print(f"  {peer.name}: {max(load.values):.2f}", flush=True)

    runs = _runs(options, peers, folder, decoder)
    contenders = _rounds(runs, options.rounds)
    _show(contenders, options.json)
    if options.sizes:
        for name, figures in _rounds(_picture_runs(options, peers, folder, frame, tower), 1).items():
            contenders[name] += figures
        _show(contenders, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kimi-vl-versus")
    parser.add_argument("--ours", type=Path, help="a full-size folder in 4 bits, of random weights")
    parser.add_argument("--ik", type=Path, metavar="CHECKOUT", help="of ik_llama.cpp; built in its folder build")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 4096, 16384])
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument(
        "--sizes", nargs="*", default=["896x896", "1792x1792"], help="of pictures; none leaves them out"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for others to leave the cores")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def _gguf_files(work: Path, python: Path) -> tuple[Path, Path, Path]:
    """The decoder; a small one, which a tower must be opened with; and the tower."""
    config = a3b().to_dict()
    small = {"intermediate_size": 256, "moe_intermediate_size": 32, "n_routed_experts": 8, "vocab_size": 8192}
    ends = {"bos_token_id": 8000, "eos_token_id": 8001}
    frame = {**config, "text_config": {**config["text_config"], **small, **ends}}
    files = (work / "decoder-q4_0.gguf", work / "frame.gguf", work / "tower-f16.gguf")
    for file, shape, part in zip(files, (config, frame, config), ("decoder", "decoder", "pictures"), strict=True):
        if not file.exists():
            described = file.with_suffix(".json")
            described.write_text(json.dumps(shape), encoding="utf-8")
            subprocess.run([python, _HERE / "random_gguf.py", part, described, file], check=True)
    return files


def _runs(options: argparse.Namespace, peers: list[Built], folder: Path, decoder: Path) -> dict[str, _Run]:
    """Everyone who decodes, and one round of them."""
    depths = [word for depth in options.depths for word in ("--depth", str(depth))]
    common = [*_common(options), "--requests", str(options.requests), "--repeat", "1"]
    runs: dict[str, _Run] = {"ours": lambda: ours.bench(folder, [*common, *depths])}
    wanted = [*common, "--depth", *map(str, options.depths)]
    for peer in peers:
        kinds: dict[str, tuple[str, ...]] = {peer.name: ("--flash",)}
        if not peer.name.startswith("ik"):
            kinds[f"{peer.name}, no flash"] = ()
        for name, kind in kinds.items():
            runs[name] = partial(_peer, "decoder", peer.decoder, decoder, *wanted, *kind)
    return runs


def _picture_runs(
    options: argparse.Namespace, peers: list[Built], folder: Path, frame: Path, tower: Path
) -> dict[str, _Run]:
    """The towers, ours with two questions about each picture."""
    sizes = [word for size in options.sizes for word in ("--size", size)]
    least = ["--depth", "0", "--prompt", "64", "--answer", "1", "--requests", "1", "--repeat", "1"]
    runs: dict[str, _Run] = {
        "ours": lambda: [f for f in ours.bench(folder, [*_common(options), *least, *sizes]) if f.at in options.sizes]
    }
    wanted = ["--tower", str(tower), "--size", *options.sizes, *_common(options)]
    for peer in peers:
        runs[peer.name] = partial(_peer, "pictures", peer.pictures, frame, *wanted)
    return runs


def _rounds(runs: dict[str, _Run], count: int) -> dict[str, list[Figure]]:
    found: dict[str, list[Figure]] = {name: [] for name in runs}
    for number in range(count):
        for name, run in runs.items():
            print(f"round {number + 1} of {count}: {name}", flush=True)
            found[name] += run()
    return found


def _show(contenders: dict[str, list[Figure]], file: Path | None) -> None:
    print(table(contenders), flush=True)
    if file is not None:
        file.write_text(json.dumps(as_json(contenders), indent=1) + "\n", encoding="utf-8")


def _peer(what: str, shim: Path, model: Path, *arguments: str) -> list[Figure]:
    command = [sys.executable, str(_HERE / "measure.py"), what, str(shim), str(model), *arguments]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    # a peer may write to stdout as well
    return [Figure(**json.loads(line)) for line in lines.splitlines() if line.startswith('{"name"')]


def _common(options: argparse.Namespace) -> list[str]:
    return ["--threads", str(options.threads), "--patience", str(options.patience)]


if __name__ == "__main__":
    main()
