"""The characters that a tower learns to read before the decoder listens, and the room that they need in a picture."""

from __future__ import annotations

# Places at which the reading head guesses a character or a blank (learning/reading.py).
FRAMES_PER_COLUMN = 4
BLANK = 0
# Any other character is left out of the target.
ALPHABET = "".join(map(chr, range(32, 127))) + "“”‘’–—…é£€©°"
CLASS = {character: i + 1 for i, character in enumerate(ALPHABET)}


def frames_needed(text: str) -> int:
    """Enough for each of its characters and a blank on either side: with fewer, repeated ones may find no room."""
    return 2 * sum(character in CLASS for character in text) + 1
