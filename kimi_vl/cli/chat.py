"""``kimi-vl chat``: a conversation, one line a turn, from a keyboard or a pipe.

What goes wrong in a turn is told on stderr; that turn is forgotten and the conversation goes on.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kimi_vl.cli import options
from kimi_vl.cli.ask import opening_messages, user_message, warn_if_cut
from kimi_vl.cli.opening import open_model, open_processor
from kimi_vl.cli.thought import Speaker, Thinking

if TYPE_CHECKING:
    from PIL.Image import Image

    from kimi_vl.answer import Answering
    from kimi_vl.processor import KimiVLProcessor
    from kimi_vl.sampling import SamplingParams

_HELP = """\
/image PATH    show a picture with the next turn; more of them add up
/system TEXT   begin anew, with TEXT told beforehand
/reset         begin anew
/help          this list
/exit          leave, as does Ctrl-D
anything else  a turn; the answer follows"""

# A path such as /usr/bin at the start of a line is no command.
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?")


def chat(
    model: options.Model = "nano",
    revision: options.Revision = None,
    offline: options.Offline = False,
    dtype: options.Dtype = None,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    presence_penalty: options.PresencePenalty = 0.0,
    frequency_penalty: options.FrequencyPenalty = 0.0,
    seed: options.Seed = None,
    stop: options.Stop = None,
    thinks: options.Thinks = None,
    thinking_budget: options.ThinkingBudget = None,
    show_thought: options.ShowThought = False,
) -> None:
    """Talk, with pictures: one line a turn, /help lists the commands."""
    thinking = Thinking(model, thinks, thinking_budget, show_thought)
    choice = options.ModelChoice(model, revision, offline, dtype, device, threads)

    from kimi_vl.sampling import SamplingParams

    params = SamplingParams(
        max_new_tokens=thinking.usual_tokens if max_new_tokens is None else max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        seed=seed,
        stop=tuple(stop or ()),
    )
    processor, _, folder = open_processor(choice)
    params = thinking.params(params, processor.tokenizer, folder)

    def speaker() -> Speaker:
        return Speaker(thinking, folder, stop or ())

    conversation = Conversation(open_model(choice), processor, params, system, speaker)
    prompt = ""
    if sys.stdin.isatty() and sys.stdout.isatty():
        prompt = "> "
        with suppress(ImportError):
            import readline  # noqa: F401 — importing it gives input() a history
    for line in _lines(prompt):
        try:
            if not conversation.take(line):
                return
        except (ValueError, RuntimeError) as error:  # torch has RuntimeError for all that it lacks, memory included
            _tell(f"kimi-vl: {' '.join(str(error).split())}")


class Conversation:
    """The turns so far, and the pictures that wait for the next. What was thought is not kept."""

    def __init__(
        self,
        model: Answering,
        processor: KimiVLProcessor,
        params: SamplingParams,
        system: str | None,
        speaker: Callable[[], Speaker],
    ) -> None:
        self._model = model
        self._processor = processor
        self._params = params
        self._system = system
        self._speaker = speaker
        self.messages: list[dict[str, Any]] = []
        self._pictures: list[Image] = []
        self._begin_anew()

    def take(self, line: str) -> bool:
        """Does what one line says. Returns whether the conversation goes on.

        Raises: ``ValueError`` if the line cannot be followed; all turns before it stay.
        """
        if not line.strip():
            return True
        command = _COMMAND.fullmatch(line.strip())
        if command is None:
            self._answer(line)
            return True
        name, rest = command[1], command[2] or ""
        match name:
            case "exit":
                return False
            case "help":
                _tell(_HELP)
            case "image":
                self._attach(rest)
            case "reset":
                self._begin_anew()
            case "system":
                if not rest:
                    raise ValueError("/system needs a text")
                self._system = rest
                self._begin_anew()
            case _:
                raise ValueError(f"there is no command /{name}; /help lists them")
        return True

    def _begin_anew(self) -> None:
        self.messages = opening_messages(self._system)
        self._pictures = []

    def _attach(self, path: str) -> None:
        from kimi_vl.media import load_picture
        from kimi_vl.patches import plan_grid

        if not path:
            raise ValueError("/image needs the path of a picture")
        # a file dragged into a terminal comes in quotes; Path.expanduser would fail where there is no such user
        path = os.path.expanduser(path.strip("'\""))  # noqa: PTH111
        picture = load_picture(path)
        grid = plan_grid(*picture.size, self._processor.image_config)
        self._pictures.append(picture)
        _tell(f"{path}: {picture.width} x {picture.height}, {grid.tokens} tokens of the next turn")

    def _answer(self, text: str) -> None:
        from kimi_vl.answer import Reply

        messages = [*self.messages, user_message(self._pictures, text)]
        self._pictures = []
        reply = Reply(self._model, self._processor, messages, self._params)
        spoken = self._speaker().speak(reply)
        self.messages = [*messages, {"role": "assistant", "content": spoken.said}]
        warn_if_cut(reply.answer)


def _lines(prompt: str) -> Iterator[str]:
    try:
        while True:
            yield input(prompt)
    except EOFError:
        if prompt:
            print()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
