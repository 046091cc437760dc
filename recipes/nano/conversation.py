"""What every source of questions gives: pictures, and what is asked and answered about them, turn by turn."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Turn:
    """One question and the whole answer to it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Pictures (RGB), shown in this order before the first question, and the turns about them.

    ``pages`` are pictures each of which is told by its number, as those of a file are.
    """

    pictures: tuple[Image.Image, ...]
    turns: tuple[Turn, ...]
    pages: bool = False
