"""The peers' environment, and each peer built for this processor.

In: a folder to work in, and for ik_llama.cpp a checkout. Out: :class:`Built`, the libraries that ``measure.py`` opens.
What is there already is used again. Needs a C++ compiler; cmake and ninja come from PyPI.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_NATIVE = "-DGGML_NATIVE=ON"


@dataclass(frozen=True)
class Built:
    """A peer's decoder and picture encoder behind ``shim.cpp`` and ``picture_shim.cpp``."""

    name: str
    decoder: Path
    pictures: Path


def environment(work: Path) -> Path:
    """The peers' own Python, with what makes GGUF files and builds. Returns its interpreter."""
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(work / "venv", with_pip=True)
    _run([python, "-m", "pip", "install", "--quiet", "numpy", "gguf", "cmake", "ninja"])
    return python


def llama_cpp(work: Path, python: Path) -> Built:
    """PyPI's newest ``llama-cpp-python``, compiled here; its source has the headers."""
    source = work / "llama-cpp-python"
    if not source.exists():
        _run([python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", work, source.name])
        with tarfile.open(next(work.glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(work, filter="data")
        next(work.glob("llama_cpp_python-*/")).rename(source)
    libraries = next((work / "venv" / "lib").glob("python*/site-packages")) / "llama_cpp" / "lib"
    if not libraries.exists():
        settings = os.environ | {"CMAKE_ARGS": _NATIVE, "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())}
        _run([python, "-m", "pip", "install", "--quiet", source], env=settings)
    vendor = source / "vendor" / "llama.cpp"
    headers = [vendor / "include", vendor / "ggml" / "include", vendor / "tools" / "mtmd"]
    return _shims("llama.cpp", work, headers, [libraries], [])


def ik_llama_cpp(work: Path, python: Path, checkout: Path) -> Built:
    """A checkout of ik_llama.cpp, in its own ``build``."""
    build, tools = checkout / "build", python.parent
    if not (build / "build.ninja").exists():
        options = [_NATIVE, "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF"]
        # only the cache's 16-bit kinds are measured; all the others take minutes more
        options += ["-DLLAMA_CURL=OFF", "-DGGML_IQK_FA_ALL_QUANTS=OFF"]
        ninja = [f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", "-G", "Ninja"]
        _run([tools / "cmake", "-S", checkout, "-B", build, *ninja, *options])
    _run([tools / "cmake", "--build", build, "--target", "llama", "mtmd"])
    headers = [checkout / "include", checkout / "ggml" / "include", checkout / "examples" / "mtmd", checkout / "vendor"]
    libraries = [build / "src", build / "ggml" / "src", build / "examples" / "mtmd"]
    return _shims("ik_llama.cpp", work, headers, libraries, ["-DIK"])


def _shims(name: str, work: Path, headers: Sequence[Path], libraries: Sequence[Path], flags: Sequence[str]) -> Built:
    found = [f"-I{path}" for path in headers]
    linked = [argument for path in libraries for argument in (f"-L{path}", f"-Wl,-rpath,{path}")]
    built = Built(name, work / f"{name}.so", work / f"{name}-pictures.so")
    for source, target, names in (
        ("shim.cpp", built.decoder, ["llama"]),
        ("picture_shim.cpp", built.pictures, ["mtmd", "llama"]),
    ):
        compiler = [os.environ.get("CXX", "c++"), "-O2", "-shared", "-fPIC", "-std=c++17", *flags, *found]
        wanted = [f"-l{library}" for library in (*names, "ggml", *([] if "-DIK" in flags else ["ggml-base"]))]
        _run([*compiler, _HERE / source, "-o", target, *linked, *wanted])
    return built


def _run(command: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, env=env)
