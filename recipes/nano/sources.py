"""Every source of nano's recipes by its name: (seed, index) -> Sample. The TOML files beside this one mix them."""

from __future__ import annotations

from recipes.nano import chats, paragraphs, scenes, several
from recipes.nano.captioned import caption_sample
from recipes.nano.figures import charts, receipts, tables
from recipes.nano.samples import captioning, conversing, line_asked, line_captioned, plain_text, read_aloud
from recipes.nano.screens import sources as screens

text = plain_text

# For the tower alone
captioned_line = line_captioned
captioned_picture = captioning(caption_sample)
captioned_screen = read_aloud(screens.paragraph_sample)

# Conversations
line = line_asked
paragraph = conversing(paragraphs.paragraph_drawn)
emoji = conversing(scenes.emoji_conversation)
counting = conversing(scenes.counting_conversation)
comparing = conversing(scenes.comparing_conversation)
colour = conversing(scenes.colour_conversation)
side = conversing(scenes.side_conversation)
pictures = conversing(several.several_sample)
pointing = conversing(screens.grounding_sample)
element = conversing(screens.element_sample)
screen_line = conversing(screens.paragraph_sample)
screen = conversing(screens.screen_reading_sample)
screen_question = conversing(screens.screen_question_sample)
chart = conversing(charts.chart_sample)
table = conversing(tables.table_sample)
receipt = conversing(receipts.receipt_sample)
chat = conversing(chats.chat_sample)

# A small set that was made without a browser has none of what these show (smoke.py).
SHOWING_SCREENS = frozenset(
    ("captioned_screen", "pointing", "element", "screen_line", "screen", "screen_question"),
)
