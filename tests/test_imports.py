"""Who may know whom: each file imports only from rooms that come before it, so any part can be read by itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "kimi_vl"
FILES = {
    ".".join(("kimi_vl", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}

# What a room may import of ours; a name ending in a dot stands for all that is in it.
INPUT = (
    "kimi_vl.config",
    "kimi_vl.media",
    "kimi_vl.documents",
    "kimi_vl.patches",
    "kimi_vl.tokenizer",
    "kimi_vl.chat",
    "kimi_vl.hub",
)
MODEL = ("kimi_vl.config", "kimi_vl.model.")
PLANNING = ("kimi_vl.footprint", "kimi_vl.machine")
ANSWERING = (
    "kimi_vl.processor",
    "kimi_vl.checkpoint",
    "kimi_vl.sampling",
    "kimi_vl.generate",
    "kimi_vl.transcript",
)
ENGINE = (
    *PLANNING,
    "kimi_vl.processor",
    "kimi_vl.checkpoint",
    "kimi_vl.sampling",
    "kimi_vl.precision",
    "kimi_vl.engine.",
)
NUMBERS = ("kimi_vl.engine.int4",)
ARROWS: dict[str, tuple[str, ...]] = {
    "kimi_vl.config": (),
    "kimi_vl.hub": (),
    "kimi_vl.media": INPUT,
    "kimi_vl.documents": (),
    "kimi_vl.patches": INPUT,
    "kimi_vl.tokenizer": INPUT,
    "kimi_vl.chat": INPUT,
    "kimi_vl.processor": INPUT,
    "kimi_vl.model.": MODEL,
    "kimi_vl.sampling": (),
    "kimi_vl.transcript": ("kimi_vl.tokenizer", "kimi_vl.sampling"),
    "kimi_vl.grammar": ("kimi_vl.tokenizer",),
    "kimi_vl.thinking": ("kimi_vl.tokenizer", "kimi_vl.grammar"),
    "kimi_vl.precision": (),
    "kimi_vl.footprint": ("kimi_vl.config",),
    "kimi_vl.machine": (),
    "kimi_vl.apart": (),
    "kimi_vl.marks": (),
    "kimi_vl.checkpoint": (*MODEL, "kimi_vl.hub"),
    "kimi_vl.generate": (*MODEL, "kimi_vl.sampling"),
    "kimi_vl.answer": (*INPUT, *MODEL, *ANSWERING),
    "kimi_vl.engine.": (*INPUT, *MODEL, *ENGINE),
    "kimi_vl.engine.kernels": (
        *NUMBERS,
        "kimi_vl.engine.opened",
        "kimi_vl.engine.pages",
        "kimi_vl.engine.weights",
    ),
    "kimi_vl.engine.latents": ("kimi_vl.engine.pages",),
    "kimi_vl.engine.reference": (
        *NUMBERS,
        "kimi_vl.engine.latents",
        "kimi_vl.engine.opened",
        "kimi_vl.engine.pages",
        "kimi_vl.engine.weights",
        "kimi_vl.model.rotary",
        "kimi_vl.model.segments",
    ),
    "kimi_vl.engine.exact": (*MODEL, "kimi_vl.engine.pages", "kimi_vl.engine.weights"),
    "kimi_vl.engine.weights": NUMBERS,
    "kimi_vl.engine.int4": (),
    "kimi_vl.engine.opened": (),
    "kimi_vl.engine.pages": (),
    "kimi_vl.engine.guess": (),
    "kimi_vl.engine.scheduler": ("kimi_vl.engine.guess", "kimi_vl.engine.pages", "kimi_vl.engine.request"),
    "kimi_vl.engine.layout": ("kimi_vl.config", "kimi_vl.footprint"),
    "kimi_vl.engine.plan": (
        *PLANNING,
        "kimi_vl.config",
        "kimi_vl.patches",
        "kimi_vl.engine.layout",
        "kimi_vl.engine.pages",
    ),
    "kimi_vl.serve.": (
        *INPUT,
        "kimi_vl.processor",
        "kimi_vl.checkpoint",
        "kimi_vl.sampling",
        "kimi_vl.grammar",
        "kimi_vl.thinking",
        "kimi_vl.transcript",
        "kimi_vl.marks",
        "kimi_vl.parts",
        "kimi_vl.engine.",
        "kimi_vl.serve.",
    ),
    "kimi_vl.serve.limits": (),
    "kimi_vl.serve.request_schema": (),
    "kimi_vl.serve.answer_schema": (),
    "kimi_vl.serve.wire": (),
    "kimi_vl.serve.metrics": (),
    "kimi_vl.serve.guard": ("kimi_vl.serve.errors", "kimi_vl.serve.limits", "kimi_vl.serve.wire"),
    "kimi_vl.serve.errors": (),
    "kimi_vl.serve.fetch": (),
    "kimi_vl.parts": ("kimi_vl.marks", "kimi_vl.transcript"),
    "kimi_vl.serve.picture_process": ("kimi_vl.documents", "kimi_vl.media", "kimi_vl.patches"),
    "kimi_vl.serve.admission": ("kimi_vl.serve.errors",),
    "kimi_vl.eval.": (
        *INPUT,
        "kimi_vl.apart",
        "kimi_vl.marks",
        "kimi_vl.processor",
        "kimi_vl.sampling",
        "kimi_vl.engine.",
        "kimi_vl.eval.",
    ),
    "kimi_vl.eval.scoring.": ("kimi_vl.apart", "kimi_vl.marks", "kimi_vl.eval.scoring."),
    "kimi_vl.eval.task": ("kimi_vl.chat",),
    "kimi_vl.eval.files": (),
    "kimi_vl.eval.video": (),
    "kimi_vl.eval.intervals": (),
    "kimi_vl.eval.record": (),
    "kimi_vl.eval.tasks.": (
        "kimi_vl.chat",
        "kimi_vl.documents",
        "kimi_vl.eval.scoring.",
        "kimi_vl.eval.task",
        "kimi_vl.eval.files",
        "kimi_vl.eval.video",
        "kimi_vl.eval.vlmevalkit",
        "kimi_vl.eval.tasks.mmmu",
    ),
    "kimi_vl.train.": (
        "kimi_vl.apart",
        "kimi_vl.marks",
        "kimi_vl.engine.",
        *INPUT,
        *MODEL,
        "kimi_vl.processor",
        "kimi_vl.checkpoint",
        "kimi_vl.precision",
        "kimi_vl.generate",
        "kimi_vl.sampling",
        "kimi_vl.train.",
    ),
    "kimi_vl.train.data.": (*INPUT, "kimi_vl.model.segments", "kimi_vl.processor", "kimi_vl.train.data."),
    "kimi_vl.train.learning.": (
        *INPUT,
        *MODEL,
        "kimi_vl.train.parallel",
        "kimi_vl.train.data.",
        "kimi_vl.train.learning.",
    ),
    "kimi_vl.train.optim.": (
        *MODEL,
        "kimi_vl.precision",
        "kimi_vl.train.parallel",
        "kimi_vl.train.scale.owners",
        "kimi_vl.train.optim.",
    ),
    "kimi_vl.train.watching.": (
        *INPUT,
        *MODEL,
        "kimi_vl.processor",
        "kimi_vl.generate",
        "kimi_vl.sampling",
        "kimi_vl.train.parallel",
        "kimi_vl.train.data.",
        "kimi_vl.train.learning.",
        "kimi_vl.train.watching.",
    ),
    "kimi_vl.train.rl.policy": (),
    "kimi_vl.train.rl.curriculum": (),
    "kimi_vl.train.rewards": ("kimi_vl.apart", "kimi_vl.marks"),
    "kimi_vl.train.plan.": ("kimi_vl.config", "kimi_vl.train.plan.", "kimi_vl.train.scale.layout"),
}


def imports(path: Path) -> set[str]:
    """Modules named in any import of a file, wherever it stands, but for those that only a type checker follows."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            module = node.module or ""
            # "from kimi_vl.model import vision" names a module too.
            found |= {m for alias in node.names if (m := f"{module}.{alias.name}") in FILES} or {module}
        pending += ast.iter_child_nodes(node)
    return found


def in_room(module: str, room: str) -> bool:
    return module == room or (room.endswith(".") and f"{module}.".startswith(room))


def ours(module: str) -> set[str]:
    return {name for name in imports(FILES[module]) if name.split(".")[0] == "kimi_vl"}


@pytest.mark.parametrize("module", FILES)
def test_the_arrows_hold(module: str) -> None:
    for room, allowed in ARROWS.items():
        if in_room(module, room):
            strangers = {name for name in ours(module) if not any(in_room(name, room) for room in allowed)}
            assert not strangers


@pytest.mark.parametrize("module", [m for m in FILES if in_room(m, "kimi_vl.model.")])
def test_the_model_is_torch_and_the_standard_library(module: str) -> None:
    roots = {name.split(".")[0] for name in imports(FILES[module])}
    assert roots <= {"torch", "kimi_vl"} | sys.stdlib_module_names


@pytest.mark.parametrize("room", ["kimi_vl.train.", "kimi_vl.cli.", "kimi_vl.serve.", "kimi_vl.eval."])
def test_nothing_but_the_command_line_imports(room: str) -> None:
    for module in FILES:
        if not in_room(module, room) and not in_room(module, "kimi_vl.cli."):
            assert not {name for name in ours(module) if in_room(name, room)}, module


def test_a_process_that_opens_pictures_never_loads_torch() -> None:
    code = "import sys, kimi_vl.serve.picture_process; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", [m for m in FILES if in_room(m, "kimi_vl.serve.")])
def test_the_server_knows_no_tensors(module: str) -> None:
    assert not {name for name in imports(FILES[module]) if name.split(".")[0] == "torch"}


def test_the_config_imports_no_library() -> None:
    assert {name.split(".")[0] for name in imports(FILES["kimi_vl.config"])} <= sys.stdlib_module_names


def test_each_room_has_files() -> None:
    for room in ARROWS:
        assert any(in_room(module, room) for module in FILES), room
    assert imports(FILES["kimi_vl.model.kimi_vl"]) > {"torch", "kimi_vl.model.decoder"}
