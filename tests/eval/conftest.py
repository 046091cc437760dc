"""What tests of several benchmarks show."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

# Scorers, tables and videos need the extra "eval".
collect_ignore_glob = [] if all(map(find_spec, ("av", "latex2sympy2_extended", "pyarrow"))) else ["test_*.py"]


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.eval.films import write_video

    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path)
    return path
