"""Package name -> unpacked folder under `.data/nano/packages/`.

Comes in: names of npm and Debian packages. Goes out: folders. Every download is idempotent: a whole folder that is
there is taken as it is, and one appears only when it is whole (unpacked and described beside, then renamed).
Knows nothing of fonts, text or emoji.
"""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2] / ".data"
SMALL_DATA = _ROOT / "nano-small"
DATA = Path(os.environ.get("NANO_DATA") or _ROOT / "nano").absolute()
"""Where everything that was fetched or made from it lies (ignored by git): the folder that the environment variable
NANO_DATA names, else `.data/nano`."""
DESCRIPTION = "PACKAGE.json"
"""Our own file in each unpacked package: its name and its version."""


def folder(kind: str, name: str) -> Path:
    """The place of one unpacked package; `kind` is "npm" or "deb"."""
    return DATA / "packages" / kind / name.removeprefix("@").replace("/", "+")


def is_whole(target: Path) -> bool:
    """Whether a package lies there unpacked to its end: its description is written last."""
    return (target / DESCRIPTION).exists()


def version(kind: str, name: str) -> str:
    """The version of an unpacked package."""
    return str(json.loads((folder(kind, name) / DESCRIPTION).read_text())["version"])


def npm(name: str) -> Path:
    """Unpack one npm package (its own files, no dependencies, no scripts)."""
    target = folder("npm", name)
    if is_whole(target):
        return target
    with _workplace(target) as work:
        command = ["npm", "pack", "--silent", "--pack-destination", work, name]
        _quietly(command, cwd=work)
        (archive,) = Path(work).glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(Path(work) / "out", filter="data")
        (top,) = (Path(work) / "out").iterdir()
        package = json.loads((top / "package.json").read_text())
        _finish(top, target, name=name, found=str(package["version"]))
    return target


def deb(name: str) -> Path:
    """Unpack one Debian package; nothing is installed."""
    target = folder("deb", name)
    if is_whole(target):
        return target
    with _workplace(target) as work:
        _quietly(["apt-get", "download", name], cwd=work)
        (archive,) = Path(work).glob("*.deb")
        _quietly(["dpkg-deb", "-x", str(archive), f"{work}/out"], cwd=work)
        found = archive.name.split("_")[1].replace("%3a", ":")
        _finish(Path(work) / "out", target, name=name, found=found)
    return target


def npm_all(names: Sequence[str]) -> list[Path]:
    """Many npm packages at once: the client waits mostly for the network."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(npm, names))


def deb_all(names: Sequence[str]) -> list[Path]:
    """Many Debian packages at once."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(deb, names))


def _workplace(target: Path) -> tempfile.TemporaryDirectory[str]:
    # On the same file system as the target, so that the last step is one atomic rename.
    target.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-")


def _quietly(command: list[str], *, cwd: str) -> None:
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"{command[0]} is not here: packages are fetched by npm, apt-get and dpkg-deb")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} … failed: {done.stderr.strip()[-400:]}")


def _finish(made: Path, target: Path, *, name: str, found: str) -> None:
    (made / DESCRIPTION).write_text(json.dumps({"name": name, "version": found}))
    if target.exists():
        # Half of a package, left by whatever does not rename: a copy that was stopped.
        shutil.rmtree(target)
    made.rename(target)
    print(f"  fetched {name} {found}", flush=True)
