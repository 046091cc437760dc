"""A model's name → the local folder that holds it.

In: an alias, a folder or a hub id. Out: a folder with the files asked for, downloaded if need be. Only data files are
ever fetched: no code of a repository comes to this machine. Knows nothing of what the files hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# Ship inside the package.
NANO = Path(__file__).parent.resolve() / "nano"
NANO_THINKING = NANO.with_name("nano_thinking")
_SHIPPED = {"nano": NANO, "nano-thinking": NANO_THINKING}
HUB_IDS = {
    "instruct": "moonshotai/Kimi-VL-A3B-Instruct",
    "thinking": "moonshotai/Kimi-VL-A3B-Thinking",
    "thinking-2506": "moonshotai/Kimi-VL-A3B-Thinking-2506",
}
ALIASES = (*_SHIPPED, *HUB_IDS)
CONFIG_FILES = ("config.json", "generation_config.json")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
PROCESSOR_FILES = ("preprocessor_config.json", "tiktoken.model", "tokenizer_config.json", "chat_template.jinja")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve(name: str | Path, files: Sequence[str], *, revision: str | None = None, offline: bool = False) -> Path:
    """The folder of a model.

    Args:
        name: an alias (:data:`ALIASES`), a folder, or a hub id ``owner/name``.
        files: glob patterns of what is needed; nothing else is downloaded.
        revision: branch, tag or commit of a hub id; its main branch if not given. A folder has none.
        offline: take what was downloaded before, and never touch the network.

    Raises: ``ValueError`` if there is no such folder, id or revision, or the hub cannot be reached.
    """
    folder = _SHIPPED.get(str(name), Path(name))
    if str(name) and folder.is_dir():
        if revision is not None:
            raise ValueError(f"{name} is a folder and has no revision {revision!r}: leave revision out")
        return folder
    repo = HUB_IDS.get(str(name), str(name))
    if not _HUB_ID.fullmatch(repo) or folder.is_absolute():
        raise ValueError(
            f"no model {str(name)!r}: give a folder, a hub id such as owner/name, or one of {', '.join(ALIASES)}"
        )
    return _download(repo, files, revision, offline)


def _download(repo: str, files: Sequence[str], revision: str | None, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The library has changed its HTTP client before; its own error stands on that client's most general one.
    client_errors = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    lost: tuple[type[Exception], ...] = (LocalEntryNotFoundError, OSError, *client_errors)
    at = f"{repo} at revision {revision}" if revision else repo
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(files), local_files_only=offline))
    except GatedRepoError as error:
        raise ValueError(f"{at} needs its terms accepted on the hub and a token (`hf auth login`)") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"there is no {repo} on the hub, nor a folder of that name here") from error
    except RevisionNotFoundError as error:
        raise ValueError(f"there is no {at} on the hub") from error
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no hub id, and there is no folder of that name") from error
    except lost as error:
        way_out = "run once without offline mode" if offline else "check the connection, or give a local folder"
        raise ValueError(f"{at} is not on this machine and was not downloaded: {way_out}") from error
