"""What every kind of problem gives: a picture, a question, a worked solution, and the rule of a right answer.

Goes out: `Problem`. Knows nothing of tokens or of training.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from kimi_vl.train.rewards import Rule

LEVELS = 5
"""From 1, the easiest."""


@dataclass(frozen=True)
class Problem:
    """``thought`` leads to ``answer``, which ``rule`` finds right; ``kind`` and ``level`` say how hard it is."""

    picture: Image.Image
    question: str
    thought: str
    answer: str
    rule: Rule
    kind: str
    level: int
