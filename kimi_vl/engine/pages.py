"""The latent cache's pages: who holds them, and which of them hold a known beginning of a sequence.

A page is 64 tokens of every layer. A full page may be known by its key, a digest of all tokens up to its end, with
every picture's own digest in place of its placeholders; a sequence that begins alike takes it over. A page that
nobody holds keeps what it has until it is needed, the longest unused first. Knows nothing of tensors.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

PAGE = 64  # tokens
SCALE_COLUMNS = 128  # of a latent in 8 bits, that share a scale

Key = bytes
CacheDtype = Literal["bfloat16", "int8"]


def row_bytes(kv_lora_rank: int, qk_rope_head_dim: int, dtype: CacheDtype) -> int:
    """Bytes of one token in one layer: its latent and its rotary key, in 8 bits with float32 scales behind them."""
    numbers = kv_lora_rank + qk_rope_head_dim
    return 2 * numbers if dtype == "bfloat16" else numbers + 4 * (-(-kv_lora_rank // SCALE_COLUMNS) + 1)


@dataclass(frozen=True)
class PictureSpan:
    """A picture's placeholders in a prompt: where they begin, how many, and the digest of all that it shows."""

    start: int
    tokens: int
    digest: bytes


def page_keys(ids: Sequence[int], pictures: Sequence[PictureSpan], known: Sequence[Key] = ()) -> list[Key]:
    """The keys of all full pages of a sequence, first page first. 256 bits each.

    ``known`` are those of its first pages, which are not made again.
    """
    keys = list(known)
    key = keys[-1] if keys else b""
    for start in range(len(keys) * PAGE, len(ids) - PAGE + 1, PAGE):
        digest = hashlib.blake2b(key, digest_size=32)
        digest.update(b"".join(i.to_bytes(4, "little") for i in ids[start : start + PAGE]))
        for picture in pictures:
            if picture.start < start + PAGE and start < picture.start + picture.tokens:
                # which picture, and how its rows lie to this page
                digest.update((picture.start - start).to_bytes(8, "little", signed=True) + picture.digest)
        key = digest.digest()
        keys.append(key)
    return keys


class PagePool:
    """Pages 0 … count - 1."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._holders = [0] * count
        self._key_of: dict[int, Key] = {}
        self._page_of: dict[Key, int] = {}
        # Held by nobody, longest unused first; those with a key can still be found.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))

    @property
    def free(self) -> int:
        return len(self._free)

    def known(self, keys: Sequence[Key]) -> list[int]:
        """The pages of the longest known beginning, not yet held."""
        pages = []
        for key in keys:
            if key not in self._page_of:
                break
            pages.append(self._page_of[key])
        return pages

    def hold(self, pages: Sequence[int]) -> None:
        """One more sequence holds these."""
        for page in pages:
            self._holders[page] += 1
            self._free.pop(page, None)

    def take(self) -> int | None:
        """A page of one's own, whose content is lost; ``None`` if all are held."""
        if not self._free:
            return None
        page, _ = self._free.popitem(last=False)
        key = self._key_of.pop(page, None)
        if key is not None:
            del self._page_of[key]
        self._holders[page] = 1
        return page

    def release(self, pages: Sequence[int]) -> None:
        """A sequence lets go. The end of a sequence is forgotten before its beginning, which more may share."""
        for page in reversed(pages):
            self._holders[page] -= 1
            assert self._holders[page] >= 0
            if not self._holders[page]:
                self._free[page] = None

    def forget(self) -> None:
        """Whatever pages hold, none is known by it any more."""
        self._key_of.clear()
        self._page_of.clear()

    def name(self, page: int, key: Key) -> None:
        """Says what a page that is held and full contains. The first page of a key stays its page."""
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key] = page
            self._key_of[page] = key
