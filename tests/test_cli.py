"""The command line as a user has it: pictures on disk, pipes, a terminal, and much that is wrong.

What the model says is no matter here, only how it is asked and how its answer arrives.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from kimi_vl import checkpoint
from kimi_vl.answer import KimiVL
from kimi_vl.cli import ask, chat, main, progress
from kimi_vl.config import KimiVLConfig, a3b, nano
from kimi_vl.hub import NANO
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.sampling import SamplingParams

KIMI_VL = [sys.executable, "-m", "kimi_vl.cli"]
FEW = ("--max-new-tokens", "3")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, which has imported torch already."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with pictures good and bad, and configs."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (300, 200), "red").save("red.png")
    Image.new("RGB", (64, 90), "blue").save("blue.jpg")
    Image.new("RGB", (20_000, 4)).save("thread.png")
    noise = Image.effect_noise((200, 200), 50)
    noise.save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:5000])
    Path("text.txt").write_text("no picture")
    Path("list.json").write_text("[1]")
    Path("bad.json").write_text('{"type": "colour"}')
    Path("good.json").write_text('{"type": "integer", "minimum": 0, "maximum": 9}')
    _write_config(Path("a3b"), a3b().to_dict())
    _write_config(Path("llama"), {"model_type": "llama"})
    _write_config(Path("other-4-bits"), a3b().to_dict() | {"quantization_config": {"quant_method": "awq"}})
    return tmp_path


def _write_config(folder: Path, config: object) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))


# -- what is wrong is said in one line, before anything is spent -----------------------------------

BAD = {
    "ask": "Missing argument 'QUESTION'",
    "ask red.png": "no question after red.png",
    "ask -": "no question after -",
    "ask red.png ''": "empty",
    "ask none.png what": "none.png: no such file",
    "ask red.png . what": ".: is a folder",
    "ask text.txt what": "text.txt: is no picture",
    "ask cut.png what": "cut.png: PNG cannot be read",
    "ask thread.png what": "under 512 patches",
    "ask - what": "is empty (read from stdin)",
    "ask - - what": "give it once",
    "ask https://example.org/a.png what": "download the picture",
    "ask what --temperature -1": "temperature must be 0 or more, not -1.0",
    "ask what --temperature nan": "temperature",
    "ask what --temperature hot": "'--temperature'",
    "ask what --top-p 0": "top_p",
    "ask what --seed -1": "seed",
    "ask what --max-new-tokens 0": "max_new_tokens must be at least 1",
    "ask what --max-new-tokens 200000": "exceed the context of 131072",
    "ask what --top-k -1": "top_k must be 0",
    "ask what --min-p 2": "min_p must be from 0 to 1",
    "ask what --repetition-penalty 0": "repetition_penalty must be from 0.01 to 100",
    "ask what --presence-penalty 3": "presence_penalty must be from -2 to 2",
    "ask what --frequency-penalty nan": "frequency_penalty must be from -2 to 2",
    "ask what --stop ''": "stop must be at most 16 strings, none of them empty",
    "ask what --threads 0": "'--threads'",
    "ask what --regex [a": "the regular expression '[a' cannot be followed: unclosed character class",
    "ask what --choice ''": "a choice needs one or more texts",
    "ask what --choice a --regex a": "give one of --json-schema, --regex and --choice",
    "ask what --json-schema none.json": "--json-schema none.json cannot be read: No such file",
    "ask what --json-schema text.txt": "--json-schema text.txt is no JSON",
    "ask what --json-schema list.json": "the JSON schema must be an object",
    "ask what --json-schema bad.json": "the JSON schema cannot be followed: Invalid type: colour",
    "ask what --dtype int3": "'float32', 'bfloat16', 'float16'",
    "ask what --device meta": "--device meta cannot be used here",
    "ask what --device toaster": "--device toaster cannot be used here",
    "ask what --device fpga": "--device fpga cannot be used here",
    "ask what --model nobody": "no model 'nobody'",
    "ask what --model a3b": "preprocessor_config.json",
    "ask what --revision v1": "has no revision",
    "ask what --model owner/name --offline": "owner/name is not on this machine",
    "ask what --loud": "No such option: --loud",
    "chat --top-p 2": "top_p",
    "chat --top-k -1": "top_k",
    "chat --model nobody": "no model 'nobody'",
    "info": "Missing argument 'MODEL'",
    "info nobody": "no model 'nobody'",
    "info .": "config.json is missing",
    "info llama": "model_type is 'llama'",
    "info nano --size 100": "--size 100 is no size",
    "info nano --size 0x5": "has no pixels",
    "info nano --size 9999999x1": "under 512 patches",
    "info nano --picture text.txt": "text.txt: is no picture",
    "plan": "Missing argument 'MODEL'",
    "plan .": "config.json is missing",
    "plan llama": "model_type is 'llama'",
    "plan other-4-bits": "quantised in a way that is not known here",
    "plan nano --context 0": "'--context'",
    "plan nano --context 131073": "131,073 tokens is more than the 131,072",
    "plan nano --pictures 16 --context 16384": "16 pictures of 4,096 tokens fill a context of 16,384",
    "plan nano --size 9999999x1": "under 512 patches",
    "plan nano --devices 8": "--devices says nothing without --train",
    "plan nano --train --batch 2": "--batch says nothing with --train",
    "plan nano --train --devices 0": "'--devices'",
    "plan nano --train --device abacus": "'--device'",
    "plan nano --train --context 131073": "131,073 tokens is more than the 131,072",
    "plan nano --train --tokens 100": "a step of 100 tokens has no room for a sample of 8,192",
    "plan nano --train --tokens 8192 --devices 64": "too short for 64 devices",
    "plan nano --train --picture-share 1": "at least 0 and below 1, not 1",
    "plan nano --train --picture-share nan": "at least 0 and below 1, not nan",
    "plan nano --train --picture-share 0.5 --context 512": "a picture of 4,096 tokens is longer than a sample of 512",
    "plan nano --train --reached 0": "must be above 0, 1 at most, not 0",
    "plan nano --train --stage-tokens nan": "must be a number above 0, not nan",
    "init new": "--preset (a3b or nano) or --config",
    "init new --preset huge": "'a3b', 'nano'",
    "init new --preset nano --config a3b/config.json": "either",
    "init new --config none.json": "none.json is missing",
    "init new --config text.txt": "text.txt is not JSON",
    "init new --preset nano --shards 0": "'--shards'",
    "init text.txt --preset nano": "text.txt is a file",
    "init text.txt/new --preset nano": "cannot be written",
    "init a3b --preset nano": "--force",
    "aks": "Did you mean 'ask'",
    "": "Missing command",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_code_2(line: str, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were touched")

    monkeypatch.setattr(KimiVL, "from_pretrained", refuse)
    monkeypatch.setattr(checkpoint, "write_random_checkpoint", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "empty"))
    before = sorted(folder.rglob("*"))
    ended = run(*[word.strip("'") for word in line.split()])
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("kimi-vl: ")
    assert ended.err.count("\n") == 1
    assert BAD[line] in ended.err
    assert [path for path in sorted(folder.rglob("*")) if "empty" not in path.parts] == before


def test_the_hub_cannot_be_reached(folder: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "empty")}
    command = [*KIMI_VL, "info", "thinking"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("kimi-vl: moonshotai/Kimi-VL-A3B-Thinking is not on this machine")
    assert ended.stderr.count("\n") == 1


# -- help, version ---------------------------------------------------------------------------------


def test_help_info_and_early_mistakes_do_not_import_torch(folder: Path) -> None:
    code = """
import sys
from kimi_vl.cli import main
early = ("info a3b", "plan a3b --size 9x9", "plan a3b --train", "ask none.png what")
for line in ("--help", "--version", "ask --help", "chat --help", "init --help", *early):
    try:
        main(line.split())
    except SystemExit:
        pass
    assert "torch" not in sys.modules and "rich" not in sys.modules, line
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for word in ("ask", "chat", "info", "init", "kimi-vl 0."):
        assert word in ended.stdout


@pytest.mark.parametrize("command", [ask.ask, chat.chat])
def test_defaults_are_those_of_the_package(command: Callable[..., None]) -> None:
    offered = inspect.signature(command).parameters
    shared = [field.name for field in fields(SamplingParams) if field.name in offered]
    assert set(shared) == {field.name for field in fields(SamplingParams)} - {"n", "logit_bias", "logprobs", "grammar"}
    shared.remove("stop")  # a list here, and a tuple there
    for name in shared:
        assert offered[name].default == getattr(SamplingParams(), name)


# -- ask -------------------------------------------------------------------------------------------


def test_ask_streams_text_and_says_if_it_was_cut(run: Run, folder: Path) -> None:
    ended = run("ask", "red.png", "blue.jpg", "What is this?", *FEW)
    assert ended.code == 0
    assert ended.out.endswith("\n")
    assert ended.err in ("", "kimi-vl: cut after 3 tokens; --max-new-tokens allows more\n")


def test_ask_json_is_one_object(run: Run, folder: Path) -> None:
    one = run("ask", "red.png", "What?", "--json", *FEW)
    both = run("ask", "red.png", "blue.jpg", "What?", "--json", *FEW)
    said = json.loads(one.out)
    assert one.err == ""
    assert list(said) == ["model", "text", "finish_reason", "stop_string", "usage", "timings"]
    assert said["model"] == "nano"
    assert said["finish_reason"] in ("stop", "length")
    assert set(said["timings"]) == {"preparing", "first_token", "generating"}
    usage = said["usage"]
    assert usage["image_tokens"] == 19 * 13
    assert json.loads(both.out)["usage"]["image_tokens"] == 19 * 13 + 4 * 6
    assert usage["total_tokens"] == usage["text_tokens"] + usage["image_tokens"] + usage["completion_tokens"]


def test_ask_about_a_pdf(run: Run, folder: Path) -> None:
    red = Image.open("red.png")
    red.save("both.pdf", save_all=True, append_images=[red], resolution=300)
    usage = json.loads(run("ask", "both.pdf", "What?", "--json", *FEW).out)["usage"]
    assert usage["image_tokens"] == 2 * 19 * 13
    Path("none.pdf").write_bytes(b"%PDF-1.7")
    ended = run("ask", "none.pdf", "What?")
    assert (ended.code, ended.out) == (2, "")
    assert "picture 1 of 1: PDF cannot be read" in ended.err


def test_ask_without_a_picture(run: Run, folder: Path) -> None:
    draw = ("ask", "Hello", "--json", "--temperature", "1", "--top-p", "0.9", "--seed", "5", *FEW)
    first, second = json.loads(run(*draw).out), json.loads(run(*draw).out)
    assert first["text"] == second["text"]
    assert first["usage"]["image_tokens"] == 0
    longer = json.loads(run(*draw, "--system", "You are a very thorough proof-reader.").out)
    assert longer["usage"]["text_tokens"] != first["usage"]["text_tokens"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("--choice red --choice blue", "red|blue"),
        ("--regex [0-9]{3}", "[0-9]{3}"),
        ("--json-schema good.json", "[0-9]"),
    ],
)
def test_ask_for_a_form(form: str, expected: str, run: Run, folder: Path) -> None:
    ended = run("ask", "red.png", "Which?", *form.split(), "--temperature", "1")
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(expected, ended.out.removesuffix("\n"))


def test_threads_are_those_asked_for(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert run("ask", "Hello", "--threads", "3", *FEW).code == 0
    assert asked == [3]


def test_ask_stops_before_a_text(run: Run, folder: Path) -> None:
    whole = json.loads(run("ask", "red.png", "What?", "--json", *FEW).out)["text"]
    said = json.loads(run("ask", "red.png", "What?", "--json", *FEW, "--stop", "\n\n\n", "--stop", whole[1]).out)
    assert said["text"] == whole.partition(whole[1])[0]
    assert (said["finish_reason"], said["stop_string"]) == ("stop", whole[1])


def test_ask_takes_dtype_and_what_is_no_utf8(run: Run, folder: Path) -> None:
    assert run("ask", "\udcff?", "--dtype", "float32", *FEW).code == 0


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["a", "b\n", "\nc"], "ab\n\nc\n"),
        (["a\n", "\n", "\n"], "a\n"),
        (["\n\na"], "\n\na\n"),
        ([], "\n"),
    ],
)
def test_an_answer_ends_in_one_newline(pieces: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    ask.write_answer(pieces)
    assert capsys.readouterr().out == shown


def test_ask_in_a_pipeline(folder: Path) -> None:
    """The installed script: a picture comes in by stdin, to a locale that has ASCII only."""
    script = Path(sys.executable).with_name("kimi-vl")
    command = [str(script), "ask", "blue.jpg", "-", "Was ist das?", "--json", *FEW]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    picture = Path("red.png").read_bytes()
    ended = subprocess.run(command, input=picture, env=environment, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["usage"]["image_tokens"] == 4 * 6 + 19 * 13
    assert ended.stderr == b""


@pytest.mark.parametrize("line", ["info a3b", "ask Hello --max-new-tokens 3"])
def test_a_reader_that_left_is_no_error(line: str, folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([*KIMI_VL, *line.split()], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


# -- chat ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> KimiVL:
    return KimiVL.from_pretrained("nano")


@pytest.fixture
def conversation(model: KimiVL, folder: Path) -> chat.Conversation:
    return chat.Conversation(
        model, KimiVLProcessor.from_pretrained("nano"), SamplingParams(max_new_tokens=2), system=None
    )


def _roles(conversation: chat.Conversation) -> list[str]:
    return [message["role"] for message in conversation.messages]


def test_a_picture_is_shown_with_the_next_turn_only(conversation: chat.Conversation) -> None:
    for line in ("/image red.png", "/image 'blue.jpg'", "What is this?", "And now?"):
        assert conversation.take(line)
    assert _roles(conversation) == ["user", "assistant", "user", "assistant"]
    assert [len(conversation.messages[at]["content"]) for at in (0, 2)] == [3, 1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/image none.png", "no such file"),
        ("/image ~nobody/a.png", "no such file"),
        ("/image thread.png", "512 patches"),
        ("/image", "needs the path"),
        ("/system", "needs a text"),
        ("/dance", "no command /dance"),
    ],
)
def test_a_wrong_line_leaves_the_history_as_it_is(line: str, reason: str, conversation: chat.Conversation) -> None:
    conversation.take("Hello")
    before = list(conversation.messages)
    with pytest.raises(ValueError, match=reason):
        conversation.take(line)
    assert conversation.messages == before
    assert conversation.take("Still there?")
    assert conversation.messages[:2] == before


def test_a_turn_that_fails_is_forgotten(model: KimiVL, folder: Path) -> None:
    most = nano().text_config.max_position_embeddings
    params = SamplingParams(max_new_tokens=most - 60)
    conversation = chat.Conversation(model, KimiVLProcessor.from_pretrained("nano"), params, system=None)
    conversation.take("/image red.png")
    with pytest.raises(ValueError, match="exceed the context"):
        conversation.take("What is this?")
    assert conversation.messages == []


def test_beginning_anew(conversation: chat.Conversation) -> None:
    conversation.take("Hello")
    conversation.take("/reset")
    assert conversation.messages == []
    conversation.take("/image red.png")
    conversation.take("/system Be brief.")
    conversation.take("/usr/bin is a path, and no command")
    assert _roles(conversation) == ["system", "user", "assistant"]
    assert len(conversation.messages[1]["content"]) == 1
    assert not conversation.take("/exit")


def test_chat_from_a_pipe_shows_no_prompt(run: Run, folder: Path) -> None:
    lines = b"/image none.png\n/image red.png\n\nWhat is this?\n/help\n\xff?\n/exit\nnever read\n"
    ended = run("chat", *FEW, stdin=lines)
    assert ended.code == 0
    assert "> " not in ended.out
    assert "kimi-vl: none.png: no such file\nred.png: 300 x 200, 247 tokens of the next turn\n" in ended.err
    assert "/reset" in ended.err
    assert "never read" not in ended.out + ended.err


class Terminal:
    """A command at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.shown = ""
        self._child, self._screen = pty.fork()
        if self._child == 0:
            os.environ["TERM"] = "dumb"
            os.execv(sys.executable, [*KIMI_VL, *arguments])

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < until, self.shown
            assert self._read(), self.shown

    def code_after(self, keys: str) -> int:
        """Presses ``keys``, and again where it had no effect: Python misses a Ctrl-C just before input() waits."""
        self.type(keys)
        began = pressed = time.monotonic()
        while self._read():
            now = time.monotonic()
            if now > pressed + 10.0:
                self.type(keys)
                pressed = now
            if now > began + 60.0:
                os.kill(self._child, signal.SIGKILL)
        os.close(self._screen)
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])

    def _read(self) -> bool:
        if select.select([self._screen], [], [], 0.1)[0]:
            try:
                self.shown += os.read(self._screen, 4096).decode(errors="replace")
            except OSError:  # how Linux says that the other side is closed
                return False
        return True


def test_chat_at_a_terminal_until_ctrl_c(folder: Path) -> None:
    terminal = Terminal("chat", *FEW)
    terminal.wait_for("> ")
    terminal.type("/image red.png\n")
    terminal.wait_for("247 tokens of the next turn")
    # a shell shows 130 for both: on a busy machine a second Ctrl-C may meet an interpreter that is closing down
    assert terminal.code_after("\x03") in (130, -signal.SIGINT)
    assert "Traceback" not in terminal.shown
    assert "Aborted" not in terminal.shown


# -- info ------------------------------------------------------------------------------------------


def test_info_of_the_real_model_from_its_config_alone(run: Run, folder: Path) -> None:
    ended = run("info", "a3b", "--size", "1920x1080")
    assert ended.code == 0
    for number in ("15.96 B", "0.417 B", "0.031 B", "2.24 B", "2.91 B", "32.8 GB", "31.1 MB"):
        assert number in ended.out
    assert "released settings" in ended.out
    assert "1920 x 1080 → 1196 x 672 → 86 x 48 patches → 1,032 tokens" in ended.out


def test_info_measures_an_upright_picture(run: Run, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 100)).save("turned.jpg", exif=exif)
    said = json.loads(run("info", "nano", "--json", "--picture", "turned.jpg", "--size", "28x56").out)
    turned, small = said["pictures"]
    assert (turned["name"], turned["size"], turned["h"], turned["w"]) == ("turned.jpg", [100, 400], 50, 14)
    assert (turned["tokens"], small["tokens"]) == (25 * 7, 2 * 4)
    assert said["picture_settings"] == "its preprocessor_config.json"
    assert KimiVLConfig.from_dict(said["config"]) == nano()
    assert said["weight_bytes"]["bfloat16"] == 2 * said["parameters"]["total"]


# -- init ------------------------------------------------------------------------------------------


def test_init_nano_can_answer_at_once(run: Run, folder: Path) -> None:
    made = run("init", "new", "--preset", "nano", "--seed", "7", "--dtype", "float32")
    assert (made.code, made.err) == (0, "")
    assert made.out == "new: 19.40 M parameters, 77.7 MB\n"
    assert run("ask", "red.png", "What is this?", "--model", "new", *FEW).code == 0
    assert not list(folder.glob(".new*"))
    again = run("init", "new", "--preset", "nano", "--force")
    assert again.out == "new: 19.40 M parameters, 38.9 MB\n"


def test_init_of_a_config_says_what_is_missing(run: Run, folder: Path) -> None:
    config = replace(nano(), vision_config=replace(nano().vision_config, patch_size=16))
    _write_config(Path("mine"), config.to_dict())
    made = run("init", "new", "--config", "mine/config.json")
    assert made.code == 0
    assert made.err == "kimi-vl: new can answer once tiktoken.model is copied into it\n"
    shutil.copy(NANO / "tiktoken.model", "new")
    assert KimiVLProcessor.from_pretrained("new").image_config.patch_size == 16


def test_init_of_the_first_shards(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(checkpoint.write_random_checkpoint, shard_bytes=4_000_000)
    monkeypatch.setattr(checkpoint, "write_random_checkpoint", small)
    assert run("init", "new", "--preset", "nano", "--shards", "2").code == 0
    files = sorted(file.name for file in Path("new").glob("*.safetensors"))
    assert [name[:11] for name in files] == ["model-00001", "model-00002"]
    assert run("ask", "What?", "--model", "new").code == 2


def test_init_looks_at_the_disk_first(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, 6 * 10**9))
    monkeypatch.setattr(checkpoint, "write_random_checkpoint", lambda config, folder, **_: None)
    ended = run("init", "deep/new", "--preset", "a3b")
    assert ended.code == 2
    assert ended.err.startswith("kimi-vl: deep/new needs 32.8 GB, but 6.0 GB are free there: ")
    assert not Path("deep").exists()
    assert run("init", "new", "--preset", "a3b", "--shards", "1").code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_init_leaves_nothing(number: signal.Signals, code: int, folder: Path) -> None:
    # a quarter of a gigabyte: long enough to be met in the middle
    text = replace(nano().text_config, num_hidden_layers=20, n_routed_experts=256, hidden_size=1024)
    _write_config(Path("mine"), replace(nano(), text_config=text).to_dict())
    before = sorted(folder.rglob("*"))
    command = [*KIMI_VL, "init", "new", "--config", "mine/config.json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while not any(file.stat().st_size for file in folder.glob(".*/**/*.safetensors")):
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    child.send_signal(number)
    assert child.communicate() == ("", "")
    assert child.returncode == code
    assert sorted(folder.rglob("*")) == before


# -- progress --------------------------------------------------------------------------------------


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_wait_is_shown_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.waiting("loading nano"):
        time.sleep(0.2)
    with progress.counting_bytes("writing new", total=100) as bar:
        time.sleep(0.02)
        bar(50)
        time.sleep(0.2)
    assert "loading nano" in screen.getvalue()
    assert "50/100 bytes" in screen.getvalue()


@pytest.mark.parametrize("screen", [Screen(), io.StringIO()], ids=["short wait", "no terminal"])
def test_otherwise_nothing_is_shown(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.waiting("loading nano"), progress.counting_bytes("writing new", total=100) as bar:
        bar(100)
    assert screen.getvalue() == ""
