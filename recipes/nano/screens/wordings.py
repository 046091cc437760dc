"""What is asked about a screen, in words. A held-out evaluation asks the first of each list, the plainest.

Comes in and goes out: nothing but text.
"""

from typing import Final

from recipes.nano.questions import CANNOT_TELL

NOT_THERE: Final = "I cannot find it."
"""The answer when something is to be pointed at that is not on the screen."""

# What each kind of element is called with its name.
IT: Final = {
    "button": 'the "{name}" button',
    "link": 'the link "{name}"',
    "icon": "the {name} icon",
    "field": 'the field labelled "{name}"',
    "checkbox": 'the checkbox "{name}"',
    "switch": 'the switch "{name}"',
    "radio": 'the option "{name}"',
    "tab": 'the "{name}" tab',
    "menu": 'the "{name}" menu',
    "item": 'the menu item "{name}"',
    "heading": 'the heading "{name}"',
}
POINT: Final = (
    "Where is {it}?",
    "Click {it}.",
    "Click on {it}.",
    "Point at {it}.",
    "Find {it}.",
    "Locate {it}.",
    "Where do I find {it}?",
    "Move the pointer to {it}.",
    "Show me where {it} is.",
)
WHAT_IS_AT: Final = (
    "What is at ({x}, {y})?",
    "What do you see at ({x}, {y})?",
    "Name the element at ({x}, {y}).",
    "What would a click at ({x}, {y}) hit?",
    "Which element is at ({x}, {y})?",
    "Read what is at ({x}, {y}).",
)
READ_SCREEN: Final = (
    "Read all the text.",
    "What does this part of the screen say?",
    "Write down all the text on the screen.",
    "Transcribe the screen.",
    "Read everything from top to bottom.",
    "Which text is on the screen?",
)
BESIDE: Final = (
    'Which button is {side} "{name}"?',
    'What does the button {side} "{name}" say?',
    'Name the button {side} "{name}".',
    'Which button stands {side} the "{name}" button?',
    'Read the button {side} "{name}".',
    'Which button do I see {side} "{name}"?',
)
HEADING: Final = (
    "What is the heading?",
    "What does the heading say?",
    "Read the heading.",
    "What is the title of this page?",
    "Which heading does the page have?",
    "Name the heading of the screen.",
)
HOLDS: Final = (
    'What does the field labelled "{name}" hold?',
    'What is in the field "{name}"?',
    'Which value has "{name}"?',
    'What is entered for "{name}"?',
    'Read the field "{name}".',
    'What does it say in the "{name}" field?',
)
EMPTY: Final = "It is empty."
CHECKED: Final = (
    'Is "{name}" checked?',
    'Is the box "{name}" ticked?',
    'Is there a tick at "{name}"?',
    'Is the checkbox "{name}" on?',
    'Has "{name}" been checked?',
    'Is "{name}" ticked?',
)
SWITCHED: Final = (
    'Is "{name}" switched on?',
    'Is the switch "{name}" on?',
    'Is "{name}" turned on?',
    'Is "{name}" enabled?',
    'Has "{name}" been switched on?',
    'Is the "{name}" switch turned on?',
)
CHOSEN: Final = (
    "Which option is chosen?",
    "Which option is selected?",
    "What is chosen?",
    "Which of the options is on?",
    "Name the chosen option.",
    "Which radio button is selected?",
)
CHOSEN_TAB: Final = (
    "Which tab is selected?",
    "Which tab is open?",
    "Which tab is active?",
    "Name the selected tab.",
    "What is the current tab?",
    "Which tab am I in?",
)
FOLLOWS: Final = (
    'Which link follows "{name}"?',
    'Which link comes after "{name}"?',
    'What is the link after "{name}"?',
    'Name the next link after "{name}".',
    'After "{name}", which link is next?',
    'Which link stands next after "{name}"?',
)
KEYS: Final = (
    'Which shortcut has "{name}"?',
    'What is the shortcut of "{name}"?',
    'Which keys stand beside "{name}"?',
    'What do I press for "{name}"?',
    'Name the shortcut for "{name}".',
    'Which key combination has "{name}"?',
)
HOW_MANY: Final = (
    "How many {things} are there?",
    "How many {things} do you see?",
    "Count the {things}.",
    "How many {things} are on the screen?",
    "What is the number of {things}?",
    "How many {things} does the screen show?",
)
COUNTED: Final = {
    "button": "buttons",
    "tab": "tabs",
    "checkbox": "checkboxes",
    "switch": "switches",
    "field": "fields",
    "item": "menu items",
    "icon": "icons",
}


def every_wording() -> list[str]:
    """All that is asked and the fixed answers, for the tokenizer."""
    asked = [POINT, WHAT_IS_AT, READ_SCREEN, BESIDE, HEADING, HOLDS, CHECKED, SWITCHED, CHOSEN, CHOSEN_TAB]
    asked += [FOLLOWS, KEYS, HOW_MANY]
    said = [*IT.values(), *COUNTED.values(), NOT_THERE, CANNOT_TELL, EMPTY, "yes", "no", "click(x=0.512, y=0.043)"]
    return [*(wording for wordings in asked for wording in wordings), *said]
