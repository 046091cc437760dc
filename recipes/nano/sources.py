"""Every source of nano's recipes by its name: (seed, index) -> Sample. The TOML files beside this one mix them."""

from __future__ import annotations

from functools import partial

from recipes.nano import chats, long_chats, long_pages, long_text, paragraphs, scenes, several
from recipes.nano import pointing as pointing_at
from recipes.nano.captioned import caption_sample
from recipes.nano.figures import charts, receipts, tables
from recipes.nano.samples import (
    SHORT_UNTIL,
    captioning,
    conversing,
    line_asked,
    line_captioned,
    paired,
    plain_text,
    read_aloud,
    reading,
    talking,
    whole_text,
)
from recipes.nano.screens import sources as screens

text = plain_text

# For the tower alone
captioned_line = partial(line_captioned, short_until=SHORT_UNTIL)
captioned_picture = captioning(caption_sample)
captioned_screen = read_aloud(screens.paragraph_sample)
captioned_screen_line = read_aloud(screens.line_sample, line=True)

# The same for the decoder
paired_line = paired(line_captioned)
paired_picture = paired(captioned_picture)
paired_screen = paired(captioned_screen)
paired_screen_line = paired(captioned_screen_line)

# Conversations
line = line_asked
paragraph = conversing(paragraphs.paragraph_drawn)
emoji = conversing(scenes.emoji_conversation)
counting = conversing(scenes.counting_conversation)
listing = conversing(scenes.listing_conversation)
comparing = conversing(scenes.comparing_conversation)
colour = conversing(scenes.colour_conversation)
side = conversing(scenes.side_conversation)
pictures = conversing(several.several_sample)
pointing_things = conversing(pointing_at.things_sample)
pointing_icons = conversing(pointing_at.icons_sample)
pointing_words = conversing(pointing_at.words_sample)
pointing = conversing(screens.grounding_sample)
pointing_piece = conversing(partial(screens.grounding_sample, pieces=True))
element = conversing(screens.element_sample)
element_piece = conversing(partial(screens.element_sample, pieces=True))
screen_line = reading(screens.line_sample)
screen_paragraph = conversing(screens.paragraph_sample)
screen = conversing(screens.screen_reading_sample)
screen_question = conversing(screens.screen_question_sample)
chart = conversing(charts.chart_sample)
chart_table = conversing(charts.chart_table_sample)
table = conversing(tables.table_sample)
table_read = conversing(tables.table_read_sample)
receipt = conversing(receipts.receipt_sample)
chat = conversing(chats.chat_sample)

short_pages = conversing(partial(long_pages.pages_drawn, shortest=256, window=long_text.TRAINED))

# Long ones, at four and sixteen times what the stages before learn from
_4K, _16K = 4 * long_text.TRAINED, 16 * long_text.TRAINED
long_pages_4k = conversing(partial(long_pages.pages_drawn, window=_4K))
long_pages_16k = conversing(partial(long_pages.pages_drawn, window=_16K))
long_text_4k = conversing(partial(long_text.text_drawn, window=_4K))
long_text_16k = conversing(partial(long_text.text_drawn, window=_16K))
long_chat_4k = talking(partial(long_chats.chat_drawn, window=_4K))
long_chat_16k = talking(partial(long_chats.chat_drawn, window=_16K))
long_book_4k = whole_text(long_text.prose, _4K)
long_book_16k = whole_text(long_text.prose, _16K)

# A small set that was made without a browser has none of what these show (smoke.py).
SHOWING_SCREENS = frozenset(
    (
        *("captioned_screen", "captioned_screen_line", "screen_line", "screen_paragraph", "screen", "screen_question"),
        *("paired_screen", "paired_screen_line"),
        *("pointing", "pointing_piece", "element", "element_piece", "screen_lines"),
    )
)
