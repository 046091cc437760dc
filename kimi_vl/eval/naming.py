"""A task's name → the task, and the folder that its data lies in."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from kimi_vl.eval.files import check_published
from kimi_vl.eval.task import Source, Task

# Their modules are imported when they are asked for.
_TASKS = {
    "ai2d": "ai2d:AI2D",
    "ai2d-no-mask": "ai2d:AI2D_NO_MASK",
    "blink": "blink:BLINK",
    "infovqa": "infovqa:INFOVQA",
    "longvideobench": "longvideobench:LONGVIDEOBENCH",
    "mathvision": "mathvision:MATHVISION",
    "mathvista": "mathvista:MATHVISTA",
    "mlvu": "mlvu:MLVU",
    "mmbench": "mmbench:MMBENCH",
    "mmlongbench-doc": "mmlongbench:MMLONGBENCH_DOC",
    "mmmu": "mmmu:MMMU",
    "mmmu-pro": "mmmu_pro:MMMU_PRO",
    "mmstar": "mmstar:MMSTAR",
    "ocrbench": "ocrbench:OCRBENCH",
    "realworldqa": "realworldqa:REALWORLDQA",
    "screenspot-pro": "screenspot:SCREENSPOT_PRO",
    "screenspot-v2": "screenspot:SCREENSPOT_V2",
    "videomme": "videomme:VIDEOMME",
    "videomme-subtitles": "videomme:VIDEOMME_SUBTITLES",
}


def names() -> list[str]:
    return sorted(_TASKS)


def names_in(module: str) -> list[str]:
    """The tasks of anybody's own module, as :func:`task_of` knows them. Raises: ``ValueError``."""
    found = [name for name, value in vars(_imported(module, module)).items() if isinstance(value, Task)]
    if not found:
        raise ValueError(f"there are no tasks in {module}")
    return [f"{module}:{name}" for name in found]


def task_of(name: str) -> Task[Any]:
    """A benchmark by its name, or anybody's own as ``module:NAME``. Raises: ``ValueError``."""
    if name not in _TASKS and ":" not in name:
        near = difflib.get_close_matches(name, _TASKS, n=3, cutoff=0.5)
        meant = f"; is it {' or '.join(near)}?" if near else ":"
        raise ValueError(f"there is no task {name!r}{meant} `kimi-vl eval list` shows all")
    where = f"kimi_vl.eval.tasks.{_TASKS[name]}" if name in _TASKS else name
    module, _, attribute = where.partition(":")
    found = getattr(_imported(module, name), attribute, None)
    if not isinstance(found, Task):
        raise ValueError(f"{attribute!r} in {module} is no task")
    return found


def _imported(module: str, name: str) -> ModuleType:
    """Also one that lies where one stands."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"task {name!r} needs the module {error.name}, which is not installed") from error


def data_of(task: Task[Any], given: Path | None, *, offline: bool, any_version: bool) -> Path:
    """The folder given, or the task's own, or what the hub has. Raises: ``ValueError``, also for unpublished files."""
    folder = _data_of(task, given, offline=offline)
    if not any_version:
        check_published(folder, task.published)
    return folder


def _data_of(task: Task[Any], given: Path | None, *, offline: bool) -> Path:
    if given is not None:
        if not given.is_dir():
            raise ValueError(f"there is no folder {given}")
        # Of several tasks each has a folder by its name.
        return given / task.name if (given / task.name).is_dir() else given
    if task.source is None:
        raise ValueError(f"the data of {task.name} is on no hub: give its folder with --data ({task.about})")
    if isinstance(task.source, Path):
        return task.source
    return _downloaded(task.name, task.source, offline=offline)


def _downloaded(name: str, source: Source, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                source.repo,
                repo_type="dataset",
                revision=source.revision,
                allow_patterns=list(source.files),
                local_files_only=offline,
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"the data of {name}, {source.repo}, is not on this machine and was not downloaded: check the connection, "
            "or give its folder with --data"
        ) from error
