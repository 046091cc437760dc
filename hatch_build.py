"""Builds the native library into the package, once for each kind of processor that it knows apart.

Runs within ``pip install`` of a checkout (editable too) or a source archive, and when a wheel is made. The compiler is
that of the environment variable ``CC``, else ``cc``; where there is none, pip brings the ``ziglang`` wheel, which has
one.
If nothing compiles, the package is installed without: it computes in torch then, and says so.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("kimi_vl/engine/native")
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-Wno-psabi", "-s")
# File → what the compiler may use of x86-64. A processor that lacks it is found out before anything of it runs.
X86 = {
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16", "avx2", "fma"),
    "avx2": ("avx2", "fma"),
}
PORTABLE: dict[str, tuple[str, ...]] = {"portable": ()}


class NativeBuild(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return [] if _installed_compiler() else ["ziglang>=0.13"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        folder = Path(self.root) / NATIVE
        kinds = PORTABLE | (X86 if platform.machine().lower() in ("x86_64", "amd64") else {})
        built = [kind for kind, features in kinds.items() if self._compile(folder, kind, features)]
        if built:
            build_data["artifacts"] += [f"{NATIVE}/{kind}.so" for kind in built]
            build_data["pure_python"] = False
            tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{tag}"

    def _compile(self, folder: Path, kind: str, features: tuple[str, ...]) -> bool:
        compiler, options = _installed_compiler(), [f"-m{feature}" for feature in features]
        if compiler is None:
            # left alone it compiles for the machine that it runs on
            compiler = [sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined"]
            options = ["-mcpu=" + "+".join(("baseline", *features))]
        partial = folder / f"{kind}.partial"
        sources = sorted(str(path) for path in folder.glob("*.c"))
        try:
            command = [*compiler, *FLAGS, *options, *sources, "-o", str(partial), "-lpthread", "-lm"]
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"{kind}: not built: {getattr(error, 'stderr', None) or error}")
            return False
        partial.replace(folder / f"{kind}.so")
        return True


def _installed_compiler() -> list[str] | None:
    named = os.environ.get("CC", "cc").split()
    return named if named and shutil.which(named[0]) else None
