"""``kimi-vl chat``: what is remembered, and a real terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from kimi_vl.answer import KimiVL
from kimi_vl.cli import chat
from kimi_vl.cli.thought import Speaker, Thinking
from kimi_vl.config import nano
from kimi_vl.hub import NANO
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.sampling import SamplingParams
from tests.cli.conftest import FEW, KIMI_VL, Run


@pytest.fixture(scope="module")
def model() -> KimiVL:
    return KimiVL.from_pretrained("nano")


def conversation_with(model: KimiVL, params: SamplingParams) -> chat.Conversation:
    def speaker() -> Speaker:
        return Speaker(Thinking("nano", None, None, shown=False), NANO, ())

    return chat.Conversation(model, KimiVLProcessor.from_pretrained("nano"), params, None, speaker)


@pytest.fixture
def conversation(model: KimiVL, folder: Path) -> chat.Conversation:
    return conversation_with(model, SamplingParams(max_new_tokens=2))


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
    conversation = conversation_with(model, params)
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
    assert "kimi-vl: none.png: no such file\nred.png: 100 x 70, 35 tokens of the next turn\n" in ended.err
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
    terminal.wait_for("35 tokens of the next turn")
    # a shell shows 130 for both: on a busy machine a second Ctrl-C may meet an interpreter that is closing down
    assert terminal.code_after("\x03") in (130, -signal.SIGINT)
    assert "Traceback" not in terminal.shown
    assert "Aborted" not in terminal.shown
