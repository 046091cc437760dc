"""Names → folders, against a hub of one repository on this machine's own loopback address."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from kimi_vl.hub import ALIASES, CONFIG_FILES, HUB_IDS, NANO, PROCESSOR_FILES, WEIGHT_FILES, resolve

REPO = "someone/small"
OLD, NEW = "1" * 40, "2" * 40
REVISIONS = {"main": NEW, "v1": OLD, OLD: OLD, NEW: NEW}
FILES = {
    "config.json": b'{"of": "%s"}',
    "generation_config.json": b"{}",
    "model-00001-of-00001.safetensors": b"weights %s",
    "model.safetensors.index.json": b"{}",
    "preprocessor_config.json": b"{}",
    "tiktoken.model": b"ids",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "modeling_kimi_vl.py": b"raise SystemExit",
    "sub/config.json.py": b"raise SystemExit",
    "README.md": b"#",
    "pytorch_model.bin": b"pickle",
}
MODEL_FILES = (*CONFIG_FILES, *WEIGHT_FILES)


class Hub(ThreadingHTTPServer):
    """Speaks the three requests of a snapshot: what a revision is, what it holds, and a file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.refusal: tuple[int, str] | None = None
        self.hangs_up = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/") or "/resolve/" in path:  # the library asks of itself, too
            self.server.asked.append(path)
        if self.server.refusal is not None:
            return self.say(self.server.refusal[0], b"", {"X-Error-Code": self.server.refusal[1]})
        if not path.removeprefix("api/models/").startswith(f"{REPO}/"):
            return self.say(404, b"", {"X-Error-Code": "RepoNotFound"})
        kind, revision, *rest = path.removeprefix("api/models/").removeprefix(f"{REPO}/").split("/", 2)
        if revision not in REVISIONS:
            return self.say(404, b"", {"X-Error-Code": "RevisionNotFound"})
        commit = REVISIONS[revision]
        if kind == "revision":
            siblings = [{"rfilename": name} for name in FILES]
            return self.say_json({"id": REPO, "modelId": REPO, "sha": commit, "siblings": siblings})
        if kind == "tree":
            return self.say_json(
                [
                    {"type": "file", "path": name, "size": len(self.body(name, commit)), "oid": f"{name}{commit}"}
                    for name in FILES
                ]
            )
        assert kind == "resolve"
        headers = {"ETag": f'"{rest[0].replace("/", "-")}-{commit}"', "X-Repo-Commit": commit}
        return self.say(200, self.body(rest[0], commit), headers)

    def body(self, name: str, commit: str) -> bytes:
        return FILES[name].replace(b"%s", commit.encode())

    def say_json(self, value: object) -> None:
        self.say(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.server.hangs_up and "/resolve/" in self.path:
            return
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    use_hub(server.url, tmp_path / "cache", monkeypatch)
    yield server
    server.shutdown()
    server.server_close()


def use_hub(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT and HF_HUB_CACHE set, for a library that has read them already."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    close_session()


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


# --- folders and aliases ---------------------------------------------------------------------------------------


def test_nano_ships_with_the_package() -> None:
    assert resolve("nano", MODEL_FILES) == NANO
    assert (NANO / "config.json").is_file()


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(tmp_path, MODEL_FILES) == tmp_path
    assert resolve(str(tmp_path), MODEL_FILES) == tmp_path
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/name", MODEL_FILES) == Path("owner/name")


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder and has no revision 'v1'"):
        resolve(tmp_path, MODEL_FILES, revision="v1")


@pytest.mark.parametrize("name", ["", "nanoo", "a/b/c", "/no/where", "a b/c", "https://hub.example/a/b"])
def test_other_names_are_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(ValueError, match="no model") as caught:
        resolve(name, MODEL_FILES)
    assert all(alias in str(caught.value) for alias in ALIASES)


@pytest.mark.parametrize("name", ["-owner/name", "owner/name--x", "owner/.."])
def test_what_the_hub_calls_no_id_is_refused(name: str, hub: Hub) -> None:
    with pytest.raises(ValueError, match=r"no hub id|no model"):
        resolve(name, MODEL_FILES)
    assert not hub.asked


@pytest.mark.parametrize("alias", HUB_IDS)
def test_an_alias_asks_for_its_repository(alias: str, hub: Hub) -> None:
    with pytest.raises(ValueError, match=f"there is no {HUB_IDS[alias]} on the hub"):
        resolve(alias, MODEL_FILES)
    assert hub.asked[0].startswith(f"api/models/{HUB_IDS[alias]}/")


# --- downloads -------------------------------------------------------------------------------------------------


def test_only_the_files_asked_for_come(hub: Hub) -> None:
    folder = resolve(REPO, MODEL_FILES)
    assert names(folder) == {
        "config.json",
        "generation_config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    }
    assert NEW in (folder / "config.json").read_text()
    assert names(resolve(REPO, PROCESSOR_FILES)) == names(folder) | set(PROCESSOR_FILES)


def test_no_code_and_no_pickle_is_ever_requested(hub: Hub) -> None:
    resolve(REPO, MODEL_FILES)
    resolve(REPO, PROCESSOR_FILES)
    fetched = {path.rsplit("/", 1)[-1] for path in hub.asked if "/resolve/" in path}
    assert fetched == {n for n in FILES if n.endswith((".json", ".safetensors", "tiktoken.model", ".jinja"))}


@pytest.mark.parametrize("revision", ["v1", OLD])
def test_a_revision_is_pinned(hub: Hub, revision: str) -> None:
    folder = resolve(REPO, MODEL_FILES, revision=revision)
    assert OLD in (folder / "config.json").read_text()
    assert all(NEW not in path for path in hub.asked)


def test_the_second_time_needs_no_hub(hub: Hub) -> None:
    first = resolve(REPO, MODEL_FILES)
    old = resolve(REPO, MODEL_FILES, revision="v1")
    hub.asked.clear()
    assert resolve(REPO, MODEL_FILES, offline=True) == first
    assert resolve(REPO, MODEL_FILES, revision="v1", offline=True) == old != first
    assert not hub.asked


def test_without_connection_what_is_here_serves(hub: Hub) -> None:
    folder = resolve(REPO, MODEL_FILES)
    hub.shutdown()
    hub.server_close()
    assert resolve(REPO, MODEL_FILES) == folder


# --- what goes wrong -------------------------------------------------------------------------------------------


def test_an_unknown_repository(hub: Hub) -> None:
    with pytest.raises(ValueError, match="there is no nobody/nothing on the hub, nor a folder"):
        resolve("nobody/nothing", MODEL_FILES)


def test_an_unknown_revision(hub: Hub) -> None:
    with pytest.raises(ValueError, match=f"there is no {REPO} at revision v9 on the hub"):
        resolve(REPO, MODEL_FILES, revision="v9")


def test_a_gated_repository(hub: Hub) -> None:
    hub.refusal = (403, "GatedRepo")
    with pytest.raises(ValueError, match="needs its terms accepted"):
        resolve(REPO, MODEL_FILES)


def test_a_hub_in_trouble(hub: Hub) -> None:
    hub.refusal = (400, "")
    with pytest.raises(ValueError, match="was not downloaded: check the connection"):
        resolve(REPO, MODEL_FILES)


def test_no_connection(hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ValueError, match=f"{REPO} is not on this machine .*check the connection"):
        resolve(REPO, MODEL_FILES)


def test_a_connection_lost_on_the_way(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.hangs_up = True
    with pytest.raises(ValueError, match="was not downloaded: check the connection"):
        resolve(REPO, MODEL_FILES)
    hub.hangs_up = False
    assert "config.json" in names(resolve(REPO, MODEL_FILES))


def test_offline_and_never_downloaded(hub: Hub) -> None:
    with pytest.raises(ValueError, match="run once without offline mode"):
        resolve(REPO, MODEL_FILES, offline=True)
    assert not hub.asked


def test_offline_with_half_of_the_files(hub: Hub) -> None:
    """The words were downloaded, the weights never."""
    resolve(REPO, PROCESSOR_FILES)
    with pytest.raises(ValueError, match="run once without offline mode"):
        resolve(REPO, MODEL_FILES, offline=True)
