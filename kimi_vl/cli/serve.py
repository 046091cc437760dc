"""``kimi-vl serve``: a model behind OpenAI's interface, and a page to talk to it."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_vl.cli import options
from kimi_vl.cli.progress import calm_downloads, waiting
from kimi_vl.hub import CONFIG_FILES, HUB_IDS, PROCESSOR_FILES, WEIGHT_FILES, resolve

if TYPE_CHECKING:
    from kimi_vl.config import KimiVLConfig
    from kimi_vl.engine.pages import CacheDtype
    from kimi_vl.serve.ask import Habits

_CACHE = 2**30  # bytes that the cache takes if no context is given
_KEYS = "KIMI_VL_API_KEYS"


def serve(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="nano, or the folder or hub id of a model in 4 bits.")
    ] = "nano",
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes any that is free.", min=0, max=65535)] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", help="What clients must give; repeatable.", envvar=_KEYS, show_default=False),
    ] = None,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Let everyone in who reaches an address that is not loopback.")
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option("--allow-origin", help="A site whose pages may call this server; repeatable.", show_default=False),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="What the model is called in requests; repeatable.", show_default=False),
    ] = None,
    thinking: Annotated[
        bool | None,
        typer.Option(
            "--thinking/--no-thinking",
            help="Whether the model thinks first; by its name if not given.",
            show_default=False,
        ),
    ] = None,
    thinking_budget: Annotated[
        int | None,
        typer.Option("--thinking-budget", min=0, help="Most tokens of a thought.", show_default=False),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            min=64,
            help="Tokens of all requests together; 1 GiB of cache if not given.",
            show_default=False,
        ),
    ] = None,
    kv_cache_dtype: Annotated[str, typer.Option("--kv-cache-dtype", help="bfloat16 or int8.")] = "bfloat16",
    answers: Annotated[int, typer.Option("--answers", min=1, help="Worked on at once.")] = 16,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Answers do not depend on what else is asked, to the last bit.")
    ] = False,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME=VALUE", help="See docs/serving.md; repeatable.", show_default=False),
    ] = None,
    threads: options.Threads = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
) -> None:
    """Answer over HTTP."""
    calm_downloads()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        from kimi_vl.serve.app import create_app
        from kimi_vl.serve.run import listening_socket, run
    except ImportError as error:
        raise ValueError(f"{error.name} is missing: pip install 'kimi-vl[serve]'") from None
    from kimi_vl.serve.guard import Keys, parse_keys
    from kimi_vl.serve.limits import ServerLimits

    keys = parse_keys(api_key or [])
    loopback = _is_loopback(host)
    if not (keys or loopback or without_key):
        raise ValueError(
            f"{host} can be reached from other machines: give an API key ({_KEYS} or --api-key), or --without-key"
        )
    limits = ServerLimits().changed(limit or [])
    bound = listening_socket(host, port)
    folder = resolve(model, (*CONFIG_FILES, *WEIGHT_FILES, *PROCESSOR_FILES), revision=revision, offline=offline)
    with waiting(f"opening {model}"):
        from kimi_vl.checkpoint import read_config
        from kimi_vl.engine.engine import Engine, EngineOptions
        from kimi_vl.engine.prepared import in_four_bits
        from kimi_vl.processor import KimiVLProcessor
        from kimi_vl.serve.service import Service

        config = read_config(folder)
        dtype = _cache_dtype(kv_cache_dtype)
        engine_options = EngineOptions(
            context=context or _usual_context(config, dtype),
            most_running=answers,
            deterministic=deterministic,
            kv_cache_dtype=dtype,
        )
        engine = Engine.from_pretrained(in_four_bits(folder), threads=threads, options=engine_options)
        service = Service(
            engine,
            KimiVLProcessor.from_pretrained(folder),
            names=name or _names(model),
            habits=_habits(folder, _thinks(model, thinking), thinking_budget),
            limits=limits,
        )
    app = create_app(service, keys=Keys(keys, loopback), origins=tuple(allow_origin or ()))
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{bound.getsockname()[1]}"
    run(app, service, bound, on_ready=lambda: print(f"{service.names[0]} answers at {address}", flush=True))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cache_dtype(name: str) -> CacheDtype:
    dtypes: dict[str, CacheDtype] = {"bfloat16": "bfloat16", "int8": "int8"}
    if name not in dtypes:
        raise ValueError(f"--kv-cache-dtype must be bfloat16 or int8, not {name!r}")
    return dtypes[name]


def _usual_context(config: KimiVLConfig, dtype: CacheDtype) -> int:
    """As much as the model knows, within what a laptop can spare."""
    from kimi_vl.engine.pages import row_bytes

    text = config.text_config
    return min(
        text.max_position_embeddings,
        _CACHE // (text.num_hidden_layers * row_bytes(text.kv_lora_rank, text.qk_rope_head_dim, dtype)),
    )


def _names(model: str) -> list[str]:
    """What clients may call it."""
    known = [model, HUB_IDS.get(model), Path(model).name if os.sep in model else None]
    return list(dict.fromkeys(name for name in known if name))


def _thinks(model: str, wish: bool | None) -> bool:
    return "thinking" in model.lower() if wish is None else wish


def _habits(folder: Path, thinks: bool, budget: int | None) -> Habits:
    """How the checkpoint says that it is best drawn from; one that thinks goes round in circles at temperature 0."""
    from kimi_vl.checkpoint import read_json
    from kimi_vl.serve.ask import Habits

    path = folder / "generation_config.json"
    raw = read_json(path) if path.exists() else {}
    if raw.get("do_sample") is False:
        raw = {}
    if budget is not None and not thinks:
        raise ValueError("--thinking-budget is given, but this model does not think (--thinking says that it does)")
    return Habits(
        thinks=thinks,
        thinking_budget=budget,
        temperature=float(raw.get("temperature", 0.8 if thinks else 0.0)),
        top_p=float(raw.get("top_p", 1.0)),
        top_k=int(raw.get("top_k", 0)),
        repetition_penalty=float(raw.get("repetition_penalty", 1.0)),
    )
