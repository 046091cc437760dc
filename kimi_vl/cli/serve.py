"""``kimi-vl serve``: a model behind OpenAI's interface, and a page to talk to it."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from kimi_vl.cli import options
from kimi_vl.cli.progress import calm_downloads, waiting

if TYPE_CHECKING:
    from kimi_vl.engine.pages import CacheDtype

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
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=1, help="Engines side by side, by Ray Serve.", show_default=False),
    ] = None,
    max_replicas: Annotated[
        int | None,
        typer.Option("--max-replicas", min=1, help="As many as that under load.", show_default=False),
    ] = None,
    threads: options.Threads = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
) -> None:
    """Answer over HTTP."""
    calm_downloads()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        from kimi_vl.serve.guard import Keys, parse_keys
        from kimi_vl.serve.limits import ServerLimits
    except ImportError as error:
        raise _missing(error, "serve") from None
    keys = Keys(parse_keys(api_key or []), _is_loopback(host))
    if not (keys.keys or keys.loopback_only or without_key):
        raise ValueError(
            f"{host} can be reached from other machines: give an API key ({_KEYS} or --api-key), or --without-key"
        )
    limits, cache_dtype = ServerLimits().changed(limit or []), _cache_dtype(kv_cache_dtype)
    try:
        from kimi_vl.serve.app import create_app
        from kimi_vl.serve.opening import Wishes
        from kimi_vl.serve.run import listening_socket, run
    except ImportError as error:
        raise _missing(error, "serve") from None
    wishes = Wishes(
        model,
        names=tuple(name or ()),
        revision=revision,
        offline=offline,
        threads=threads,
        context=context,
        kv_cache_dtype=cache_dtype,
        answers=answers,
        deterministic=deterministic,
        thinking=thinking,
        thinking_budget=thinking_budget,
        limits=limits,
    )
    origins = tuple(allow_origin or ())
    bound = listening_socket(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
    wishes.find()
    ready = partial(print, f"{wishes.shown_names[0]} answers at {address}", flush=True)
    if replicas is not None or max_replicas is not None:
        least = replicas or 1
        most = max_replicas or least
        try:
            from kimi_vl.serve.cluster import ClusterOptions, run_cluster
        except ImportError as error:
            raise _missing(error, "cluster") from None
        wishes = replace(wishes, threads=threads or max(1, (os.cpu_count() or 1) // most))
        cluster = ClusterOptions(least, most, ongoing=answers, cpus=threads or (os.cpu_count() or 1) / most)
        port = bound.getsockname()[1]
        bound.close()
        run_cluster(wishes, cluster, keys=keys, origins=origins, host=host, port=port, on_ready=ready)
        return
    with waiting(f"opening {model}"):
        service = wishes.open()
    app = create_app(service, keys=keys, origins=origins)
    run(app, service, bound, on_ready=ready)


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


def _missing(error: ImportError, extra: str) -> ValueError:
    return ValueError(f"{error.name} is missing: pip install 'kimi-vl[{extra}]'")
