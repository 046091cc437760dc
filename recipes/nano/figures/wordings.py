"""What is asked about charts, tables and receipts, one list a kind.

A held-out evaluation asks the first of each list, the plainest.
"""

from typing import Final

BETWEEN: Final = " | "
"""What stands between the cells of a row."""
AS_TABLE: Final = (
    "Write the chart down as a table.",
    "Turn the chart into a table.",
    "Give all numbers of the chart.",
    "Which numbers does the chart show?",
)
READ_TABLE: Final = (
    "Read the table.",
    "Transcribe the table.",
    "Write down the whole table.",
    "What is written in the table?",
)
CHART: Final[dict[str, tuple[str, ...]]] = {
    "value": (
        "What is the value {of}?",
        "Read the value {of}.",
        "Give the value {of}.",
        "Tell me the value {of}.",
        "Which number belongs to the value {of}?",
        "How much is the value {of}?",
        "State the value {of}.",
    ),
    "measure": ("What is the {measure} {of}?", "How much is the {measure} {of}?", "Give the {measure} {of}."),
    "share": (
        "What is the value of {name}?",
        "What percentage is {name}?",
        "How large is the share of {name}?",
        "What share of the whole is {name}?",
        "How many per cent are {name}?",
        "Which percentage belongs to {name}?",
    ),
    "most": (
        "Which {axis} has the highest value?",
        "What has the highest value?",
        "Where is the value highest?",
        "Name the {axis} with the highest value.",
        "Which {axis} ranks highest?",
        "For which {axis} is the value largest?",
    ),
    "least": (
        "Which {axis} has the lowest value?",
        "What has the lowest value?",
        "Where is the value lowest?",
        "Name the {axis} with the lowest value.",
        "Which {axis} ranks lowest?",
        "For which {axis} is the value smallest?",
    ),
    "most of": (
        "Which {axis} has the highest value of {series}?",
        "Where is {series} highest?",
        "For which {axis} is {series} largest?",
        "Name the {axis} with the highest {series}.",
        "What {axis} has the most {series}?",
        "Find the {axis} where {series} is at its highest.",
    ),
    "least of": (
        "Which {axis} has the lowest value of {series}?",
        "Where is {series} lowest?",
        "For which {axis} is {series} smallest?",
        "Name the {axis} with the lowest {series}.",
        "What {axis} has the least {series}?",
        "Find the {axis} where {series} is at its lowest.",
    ),
    "highest at": (
        "Which series is highest {at}?",
        "Which is highest {at}?",
        "What is on top {at}?",
        "Which series has the largest value {at}?",
        "Which of the series leads {at}?",
    ),
    "difference": (
        "What is the difference between {one} and {other}?",
        "By how much do {one} and {other} differ?",
        "How far apart are {one} and {other}?",
        "How much larger is {one} than {other}?",
        "Subtract {other} from {one}.",
    ),
    "sum": (
        "What is the sum of {one} and {other}?",
        "Add {one} and {other}.",
        "How much are {one} and {other} together?",
        "What do {one} and {other} add up to?",
        "What is the total of {one} and {other}?",
    ),
    "larger": (
        "Is {one} larger than {other}?",
        "Is {one} greater than {other}?",
        "Is {one} higher than {other}?",
        "Does {one} exceed {other}?",
        "Is {one} more than {other}?",
        "Is {one} above {other}?",
    ),
    "smaller": ("Is {one} smaller than {other}?", "Is {one} less than {other}?", "Is {one} lower than {other}?"),
    "trend": (
        "Does {what} rise or fall from {start} to {end}?",
        "From {start} to {end}, does {what} rise or fall?",
        "Between {start} and {end}, does {what} rise or fall?",
        "Which way does {what} go from {start} to {end}?",
        "How does {what} change from {start} to {end}, does it rise or fall?",
        "Say if {what} rises or falls from {start} to {end}.",
    ),
    "categories": (
        "How many categories are shown?",
        "How many categories does the chart have?",
        "Count the categories.",
    ),
    "bars": ("How many bars are there?", "How many bars do you see?", "Count the bars."),
    "slices": ("How many slices are there?", "How many slices does the chart have?", "Count the slices."),
    "series": (
        "How many series are shown?",
        "How many series are in the legend?",
        "How many colours does the chart use?",
        "Count the series.",
    ),
    "lines": ("How many lines are there?", "How many lines does the chart have?", "Count the lines."),
    "title": (
        "What is the title of the chart?",
        "Read the title.",
        "What is the chart called?",
        "What stands above the chart?",
        "What is the chart about?",
    ),
    "horizontal axis": (
        "What is the label of the horizontal axis?",
        "What does the horizontal axis show?",
        "Read the label of the x axis.",
    ),
    "vertical axis": (
        "What is the label of the vertical axis?",
        "What does the vertical axis show?",
        "Read the label of the y axis.",
    ),
    "colour": ("What colour is {name}?", "Which colour stands for {name}?", "In which colour is {name} drawn?"),
    "colour of marks": ("What colour are the {marks}?", "Which colour do the {marks} have?"),
    "coloured": ("What is {colour}?", "What does {colour} stand for?", "Which name belongs to {colour}?"),
    "above": (
        "How many values are above {number}?",
        "How many values are larger than {number}?",
        "How many values exceed {number}?",
        "Count the values above {number}.",
    ),
    "below": (
        "How many values are below {number}?",
        "How many values are smaller than {number}?",
        "Count the values below {number}.",
    ),
    "which": ("What has the value {number}?", "Which {axis} has the value {number}?", "Where is the value {number}?"),
}
TABLE: Final[dict[str, tuple[str, ...]]] = {
    "cell": (
        "What is the {column} of {row}?",
        "What is the {column} for {row}?",
        "Give the {column} of {row}.",
        "Which {column} does {row} have?",
        "Read the cell of {row} under {column}.",
        "What stands in the row {row} under {column}?",
        "Look up the {column} of {row}.",
    ),
    "most": (
        "Which {name} has the largest {column}?",
        "Which {name} has the highest {column}?",
        "Which row has the largest {column}?",
        "Where is {column} largest?",
        "Name the {name} with the highest {column}.",
        "Who or what ranks highest in {column}?",
    ),
    "least": (
        "Which {name} has the smallest {column}?",
        "Which {name} has the lowest {column}?",
        "Which row has the smallest {column}?",
        "Where is {column} smallest?",
        "Name the {name} with the lowest {column}.",
        "Who or what ranks lowest in {column}?",
    ),
    "which": (
        "Which {name} has the {column} {cell}?",
        "Which row has {cell} under {column}?",
        "Whose {column} is {cell}?",
        "Find the {name} with the {column} {cell}.",
    ),
    "rows": (
        "How many rows does the table have, without the header?",
        "How many rows are below the header?",
        "Count the rows below the header.",
    ),
    "columns": ("How many columns does the table have?", "How many columns are there?", "Count the columns."),
    "row": (
        "Read the row of {row}.",
        "Read the whole row of {row}.",
        "Write down the row of {row}.",
        "What stands in the row of {row}?",
        "Transcribe the row that begins with {row}.",
        "Give all cells of {row}.",
    ),
    "column": (
        "Read the column {column}.",
        "Write down the cells under {column}.",
        "What stands under {column}?",
        "Transcribe the column {column}.",
    ),
    "header": (
        "Read the header.",
        "What are the column names?",
        "Write down the header of the table.",
        "Name the columns.",
    ),
    "sum": (
        "What is the sum of the column {column}?",
        "Add up the column {column}.",
        "What is the total {column}?",
        "How much is {column} in all?",
    ),
    "difference": (
        "What is the difference in {column} between {row} and {other}?",
        "By how much do {row} and {other} differ in {column}?",
        "How much more {column} does {row} have than {other}?",
        "Subtract the {column} of {other} from that of {row}.",
    ),
    "comparison": (
        "Is the {column} of {row} larger than that of {other}?",
        "Does {row} have a larger {column} than {other}?",
        "Is {row} above {other} in {column}?",
        "Does {row} exceed {other} in {column}?",
    ),
}
RECEIPT: Final[dict[str, tuple[str, ...]]] = {
    "total": (
        "What is the total?",
        "How much is the total?",
        "How much was paid in all?",
        "What does it all cost together?",
        "Read the total of the receipt.",
        "What is the sum to pay?",
    ),
    "price": (
        "What is the price of {item}?",
        "How much is the {item}?",
        "What does the {item} cost?",
        "How much was paid for {item}?",
        "Give the price of {item}.",
        "Read the price beside {item}.",
    ),
    "date": (
        "What is the date on the receipt?",
        "When was this bought?",
        "Read the date.",
        "Which date is printed?",
        "On which day was the receipt printed?",
    ),
    "count": (
        "How many items were bought?",
        "How many items are on the receipt?",
        "Count the items.",
        "How many things are listed?",
    ),
    "bought": (
        "What was bought?",
        "List the items.",
        "Which items are on the receipt?",
        "Name everything that was bought.",
    ),
    "shop": (
        "What is the name of the shop?",
        "Which shop is this receipt from?",
        "Where was this bought?",
        "Who sold this?",
    ),
    "dearest": (
        "Which item costs the most?",
        "What is the dearest item?",
        "Which item has the highest price?",
        "What was the most expensive thing?",
    ),
    "cheapest": (
        "Which item costs the least?",
        "What is the cheapest item?",
        "Which item has the lowest price?",
    ),
    "which": ("Which item costs {price}?", "What was bought for {price}?", "What costs {price}?"),
}


def every_figure_wording() -> list[str]:
    """All of them, for the tokenizer."""
    return [text for kinds in (CHART, TABLE, RECEIPT) for wordings in kinds.values() for text in wordings]
