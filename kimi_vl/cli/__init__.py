"""The command line: ``kimi-vl ask | bench | chat | eval | export | info | init | plan | quantize | serve | train``.

One file a command. This one knows only how a run ends: what a user did wrong is one line on stderr and exit code 2,
Ctrl-C is 130, a reader that went away is 1. Commands import torch when they run, so that help comes at once.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from kimi_vl import __version__
from kimi_vl.cli import ask, bench, chat, export, info, init, plan, quantize, serve, train
from kimi_vl.cli import eval as evaluation

_NAME = "kimi-vl"

app = typer.Typer(
    help="Kimi-VL: pictures and words in, words out.",
    add_completion=False,
    rich_markup_mode=None,
)
app.command("ask")(ask.ask)
app.command("bench")(bench.bench)
app.command("chat")(chat.chat)
app.command("export")(export.export)
app.command("info")(info.info)
app.command("init")(init.init)
app.command("plan")(plan.plan_memory)
app.command("quantize")(quantize.quantize)
app.command("serve")(serve.serve)
training = typer.Typer(help="Train a model, stage by stage.", rich_markup_mode=None, no_args_is_help=True)
training.command("run")(train.run)
training.command("report")(train.report)
training.command("grow")(train.grow)
app.add_typer(training, name="train")
evaluating = typer.Typer(
    help="Ask benchmarks of a model: kimi-vl eval TASK…",
    rich_markup_mode=None,
    no_args_is_help=True,
    cls=evaluation.TasksFirst,
)
evaluating.command("run")(evaluation.run)
evaluating.command("list")(evaluation.show_list)
evaluating.command("diff")(evaluation.diff)
evaluating.command("report")(evaluation.report)
app.add_typer(evaluating, name="eval")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"{_NAME} {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs ``arguments``, or those of the process, and exits."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            # no answer and no line typed is refused for a character that the terminal does not have
            stream.reconfigure(errors="replace")
    try:
        code = app(list(arguments), prog_name=_NAME, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        where = _NAME if context is None else context.command_path
        _complain(f"{error.format_message()} (see {where} --help)")
        return error.exit_code
    except ValueError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the interpreter flushes once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _complain(str(error))
        return 1


def _complain(message: str) -> None:
    print(f"{_NAME}: {' '.join(message.split())}", file=sys.stderr)
