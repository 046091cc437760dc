"""What there is of nano's data, as marks for tests that draw from it: `python -m recipes.nano.fetch` downloads it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from recipes.nano.packages import DATA
from recipes.nano.screens.shots import SCREENS
from recipes.nano.sets import FULL, here

# One file of each part; the screens, which need a browser, apart.
_PARTS = ("text/heldout.txt", "fonts", "emoji/twemoji.npy", "numbers/wheat.json", "chats/words.json")
_HERE = all((DATA / part).exists() for part in _PARTS) and find_spec("matplotlib") is not None

needs_data = pytest.mark.skipif(not _HERE, reason="nano's data, or what draws from it, is not here")
needs_full_data = pytest.mark.skipif(not _HERE or here() is not FULL, reason="nano's full data is not here")
needs_screens = pytest.mark.skipif(
    not all((SCREENS / f"{group}.zip").exists() for group in here().screens), reason="no stored screens are here"
)
