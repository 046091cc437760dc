"""The engine's decoder beside that of transformers in bfloat16, both with random weights of the full sizes.

    python benchmarks/versus_transformers.py --ours FOLDER

32 GB of bfloat16 do not fit everywhere, so transformers runs with two small numbers of layers; a layer's cost is the
difference, and the time of all 27 is counted up from it. It has an environment of its own, with the newest
transformers and the torch that we have (pip must know where that build comes from). FOLDER is a full-size one in
4 bits (``kimi-vl init x --preset a3b``, ``kimi-vl quantize x FOLDER``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import venv
from pathlib import Path

import torch
from peers import ours
from peers.figures import Figure, as_json, table

from kimi_vl.config import a3b

_HERE = Path(__file__).parent / "peers"
_DEPTH = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kimi-vl-versus")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, nargs=2, default=[2, 5], help="of transformers' decoders")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    python = _environment(options.work)
    folder = ours.spread(options.ours, options.work / "ours")
    threads = ["--threads", str(options.threads)]
    depths = ["--depth", "0", "--depth", str(_DEPTH), "--requests", "1", "--repeat", "1"]
    contenders: dict[str, list[Figure]] = {"ours": [], "transformers": []}
    wanted = {("prefill", "0"), ("decode", str(_DEPTH))}
    for _ in range(options.rounds):
        contenders["ours"] += [f for f in ours.bench(folder, [*threads, *depths]) if f.key in wanted]
        fewer, more = (_transformers(python, count, threads) for count in options.layers)
        contenders["transformers"] += _extrapolated(fewer, more, *options.layers)
    print(table(contenders))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(contenders), indent=1) + "\n", encoding="utf-8")


def _environment(work: Path) -> Path:
    python = work / "transformers" / "bin" / "python"
    if not python.exists():
        venv.create(work / "transformers", with_pip=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", f"torch=={torch.__version__}", "transformers"], check=True
    )
    return python


def _transformers(python: Path, layers: int, threads: list[str]) -> dict[str, float]:
    """Seconds of a prompt of 512 tokens, and of a token after it."""
    config = json.dumps(a3b().to_dict()["text_config"])
    command = [str(python), str(_HERE / "measure_transformers.py"), config, "--layers", str(layers), *threads]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def _extrapolated(fewer: dict[str, float], more: dict[str, float], few: int, many: int) -> list[Figure]:
    """Tokens a second with all layers; what is paid once (embedding, head) is counted once."""
    figures = []
    layers = a3b().text_config.num_hidden_layers
    for name, at, tokens in (("prefill", "0", 512), ("decode", str(_DEPTH), 1)):
        of_layer = (more[name] - fewer[name]) / (many - few)
        seconds = fewer[name] + (layers - few) * of_layer
        figures.append(Figure(name, at, "tokens/s", [tokens / seconds], []))
    return figures


if __name__ == "__main__":
    main()
