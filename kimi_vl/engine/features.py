"""What the tower saw: the features of pictures, for a prompt that is cut within one and for pictures that come again.

A budget in tokens bounds them, and nobody waits for it. Prompts are read one after the other, so at the end of a step
at most one request stands within a picture, and that picture was the last one asked for: it is never given up before
its request goes on. A picture is seen again only if its request gave way to others, or comes again much later.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from kimi_vl.engine.model import Served
from kimi_vl.engine.request import Picture


class FeatureCache:
    """Features by the picture's digest: at most ``most_tokens`` in all, or one picture if it has more.

    The longest unused are given up before new ones are computed.
    """

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def forget(self) -> None:
        self._kept.clear()

    @property
    def tokens(self) -> int:
        return sum(len(features) for features in self._kept.values())

    def get(self, picture: Picture, model: Served) -> Tensor:
        """[tokens, D] float32."""
        digest = picture.span.digest
        if digest not in self._kept:
            while self._kept and self.tokens + picture.span.tokens > self.most_tokens:
                self._kept.popitem(last=False)
            self._kept[digest] = model.image_features(picture.pixel_values, picture.grid)
        self._kept.move_to_end(digest)
        return self._kept[digest]
