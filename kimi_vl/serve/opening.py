"""From a model's name and a few wishes to a service that can be started."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kimi_vl.checkpoint import read_config, read_json
from kimi_vl.config import KimiVLConfig
from kimi_vl.engine.engine import Engine, EngineOptions
from kimi_vl.engine.pages import CacheDtype, row_bytes
from kimi_vl.engine.prepared import in_four_bits
from kimi_vl.hub import CONFIG_FILES, HUB_IDS, PROCESSOR_FILES, WEIGHT_FILES, resolve
from kimi_vl.marks import marks_of, thinks_first
from kimi_vl.parts import Marks
from kimi_vl.processor import KimiVLProcessor
from kimi_vl.serve.ask import Habits
from kimi_vl.serve.limits import ServerLimits
from kimi_vl.serve.service import Service

_CACHE = 2**30  # bytes that the cache takes if no context is given


@dataclass(frozen=True)
class Wishes:
    """What is to be served, and how. ``None`` is as usual."""

    model: str
    names: tuple[str, ...] = ()
    revision: str | None = None
    offline: bool = False
    threads: int | None = None
    context: int | None = None
    kv_cache_dtype: CacheDtype = "bfloat16"
    answers: int = 16
    deterministic: bool = False
    thinking: bool | None = None
    thinking_budget: int | None = None
    limits: ServerLimits = field(default_factory=ServerLimits)

    def __post_init__(self) -> None:
        if self.thinking_budget is not None and not self.thinks:
            raise ValueError("--thinking-budget is given, but this model does not think (--thinking says that it does)")

    @property
    def thinks(self) -> bool:
        """Whether the model thinks first, by its name if nothing is wished for."""
        return thinks_first(self.model) if self.thinking is None else self.thinking

    @property
    def shown_names(self) -> tuple[str, ...]:
        """What clients may call it."""
        if self.names:
            return self.names
        known = [self.model, HUB_IDS.get(self.model), Path(self.model).name if os.sep in self.model else None]
        return tuple(dict.fromkeys(name for name in known if name))

    def find(self) -> Path:
        """The model's folder, downloaded if need be. Raises: ``ValueError``."""
        files = (*CONFIG_FILES, *WEIGHT_FILES, *PROCESSOR_FILES)
        return resolve(self.model, files, revision=self.revision, offline=self.offline)

    def open(self) -> Service:
        """Raises: ``ValueError`` for a model that is missing, broken, not in 4 bits, too large, or of two kinds."""
        folder = self.find()
        config = read_config(folder)
        processor = KimiVLProcessor.from_pretrained(folder)
        processor.check(config)
        options = EngineOptions(
            context=self.context or _usual_context(config, self.kv_cache_dtype),
            most_running=self.answers,
            deterministic=self.deterministic,
            kv_cache_dtype=self.kv_cache_dtype,
        )
        return Service(
            Engine.from_pretrained(in_four_bits(folder), threads=self.threads, options=options),
            processor,
            names=self.shown_names,
            habits=_habits(folder, self.thinks, self.thinking_budget),
            limits=self.limits,
        )


def _usual_context(config: KimiVLConfig, dtype: CacheDtype) -> int:
    """As much as the model knows, within what a laptop can spare."""
    text = config.text_config
    row = row_bytes(text.kv_lora_rank, text.qk_rope_head_dim, dtype)
    return min(text.max_position_embeddings, _CACHE // (text.num_hidden_layers * row))


def _habits(folder: Path, thinks: bool, budget: int | None) -> Habits:
    """How the checkpoint says that it is best drawn from; one that thinks goes round in circles at temperature 0."""
    path = folder / "generation_config.json"
    raw = read_json(path) if path.exists() else {}
    if raw.get("do_sample") is False:
        raw = {}
    return Habits(
        thinks=thinks,
        thinking_budget=budget,
        temperature=float(raw.get("temperature", 0.8 if thinks else 0.0)),
        top_p=float(raw.get("top_p", 1.0)),
        top_k=int(raw.get("top_k", 0)),
        repetition_penalty=float(raw.get("repetition_penalty", 1.0)),
        marks=Marks(*marks_of(folder)),
    )
