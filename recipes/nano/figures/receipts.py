"""(seed, index, split) -> a picture of a receipt, and questions about it with their answers.

Comes in: the books, for names of shops. Goes out: `Conversation`; sides are multiples of 28. Held-out receipts list
goods and name shops that training never prints, in held-out fonts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from PIL import Image

from recipes.nano.conversation import Conversation, Turn
from recipes.nano.figures.asking import Query, ask_several, worded
from recipes.nano.figures.made_up import a_word
from recipes.nano.figures.sheet import Sheet, font, wide
from recipes.nano.figures.views import MONTHS
from recipes.nano.figures.wordings import RECEIPT
from recipes.nano.fonts import Split, faces
from recipes.nano.paper import Colour, as_jpeg
from recipes.nano.questions import CANNOT_TELL

WIDEST = 280


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GOODS: Final = _words("""
apples apricots bagels bananas basil batteries beans beef beer berries biscuits bread broccoli brush butter cabbage
cake candles carrots celery cereal cherries chicken chips chocolate coffee cookies corn crackers cream cucumber curry
dates eggs envelopes figs fish flour garlic ginger grapes gum ham honey jam juice ketchup lamp lemons lentils lettuce
magazine mangoes melon milk mushrooms mustard napkins noodles notebook nuts oats oil olives onions oranges pasta
peaches peanuts pears peas pen pepper pizza plums popcorn potatoes rice rolls salad salt sandwich sauce sausages
scissors shampoo soap socks soup spinach sponge stamps sugar tape tea toast toothpaste towel vinegar water wine
""")
HELDOUT_GOODS: Final = _words("""
almonds avocado bacon cheese cocoa cider crayons detergent foil gloves kiwis matches pancakes pickles raisins salmon
syrup tissues tomatoes tuna walnuts yeast yogurt zucchini
""")
TRAINING_SHOPS: Final = ("Market", "Store", "Shop", "Foods", "Grocery", "Corner", "& Sons", "Mart", "Deli", "Cafe")
HELDOUT_SHOPS: Final = ("Bazaar", "Pantry", "Supplies")
WEIGHTS: Final = {"total": 20, "price": 24, "date": 14, "count": 8, "bought": 10, "shop": 10, "extreme": 8, "which": 6}


@dataclass(frozen=True)
class Receipt:
    """What a receipt says; prices as they are printed."""

    shop: str
    date: str
    items: tuple[str, ...]
    cents: tuple[int, ...]
    sign: str
    others: tuple[str, ...]
    """Goods that were not bought."""

    @property
    def total(self) -> str:
        return f"{self.sign}{sum(self.cents) / 100:.2f}"

    def price(self, at: int) -> str:
        return f"{self.cents[at] / 100:.2f}"


def receipt_sample(seed: int, index: int, split: Split) -> Conversation:
    """One receipt and 2 to 5 turns about it."""
    _, image, asked = receipt_and_questions(seed, index, split)
    return Conversation((image,), tuple(Turn(one.question, one.answer) for one in asked))


def receipt_and_questions(seed: int, index: int, split: Split) -> tuple[Receipt, Image.Image, list[Query]]:
    """What `receipt_sample` shows and asks, with what it says."""
    random = Random(f"receipt/{seed}/{split}/{index}")
    receipt = _made_up(random, split)
    return receipt, _drawn(random, receipt, split), _ask(random, receipt, split, random.randint(2, 5))


def _made_up(random: Random, split: Split) -> Receipt:
    count = random.randint(1, 7)
    goods = list(GOODS if split == "train" else HELDOUT_GOODS)
    names = random.sample(goods, count + 3)
    if split == "train":
        # Any word can be bought, so that it must be read.
        names = [a_word(random, split) if random.random() < 0.25 else name for name in names]
        names = [name for name in dict.fromkeys(names) if name not in HELDOUT_GOODS]
        count = min(count, len(names) - 1)
    style: Callable[[str], str] = random.choice((str.capitalize, str.upper, str.lower))
    names = [style(name) for name in names]
    shop = (
        f"{a_word(random, split).capitalize()} {random.choice(TRAINING_SHOPS if split == 'train' else HELDOUT_SHOPS)}"
    )
    endings = random.choice(((0, 50), (0, 25, 50, 75), (49, 79, 95, 99), range(100)))
    cents = tuple(100 * random.choice((*range(1, 10), *range(1, 30))) + random.choice(endings) for _ in range(count))
    day, month, year = random.randint(1, 28), random.randrange(12), random.randint(1998, 2029)
    date = random.choice(
        (
            f"{year}-{month + 1:02}-{day:02}",
            f"{day} {MONTHS[month]} {year}",
            f"{day:02}.{month + 1:02}.{year}",
            f"{month + 1:02}/{day:02}/{year}",
        )
    )
    return Receipt(
        shop=shop.upper() if random.random() < 0.4 else shop,
        date=date,
        items=tuple(names[:count]),
        cents=cents,
        sign=random.choice(("", "", "$", "€", "£")),
        others=tuple(names[count:]),
    )


def _drawn(random: Random, receipt: Receipt, split: Split) -> Image.Image:
    found, weights = faces(split)
    face, size = random.choices(found, cum_weights=weights)[0].path, random.randint(11, 15)
    time = f"{random.randrange(7, 22):02}:{random.randrange(60):02}"
    # Left and right of each line; a line with "" on the right is centred, "-" is a rule.
    lines: list[tuple[str, str]] = [(receipt.shop, "")]
    if random.random() < 0.4:
        lines.append((f"{random.randint(1, 200)} {a_word(random, split).capitalize()} Street", ""))
    dated = [(receipt.date, time if random.random() < 0.6 else "")]
    early = random.random() < 0.6
    lines += dated if early else []
    lines += [("-", ""), *((name, receipt.price(at)) for at, name in enumerate(receipt.items)), ("-", "")]
    word = random.choice(("Total", "TOTAL", "Sum", "Total due", "To pay", "Amount"))
    lines.append((word, receipt.total))
    if random.random() < 0.3:
        lines.append((random.choice(("Card", "Paid by card", "Visa")), receipt.total))
    lines += [] if early else dated
    if random.random() < 0.4:
        lines.append((random.choice(("Thank you!", "THANK YOU", "Come again", "Have a nice day")), ""))
    while True:
        letters = font(face, size)
        widest = max(wide(letters, left) + (wide(letters, right) + 14 if right else 0) for left, right in lines)
        if widest + 16 <= WIDEST or size <= 9:
            break
        size -= 1
    row = size + random.randint(4, 8)
    width = max(112, 28 * math.ceil((widest + random.randint(16, 50)) / 28))
    width = min(width, WIDEST)
    height = 28 * math.ceil((row * len(lines) + 12) / 28)
    light = random.randint(232, 255)
    paper: Colour = (light, light, max(220, light - random.randint(0, 12)))
    ink: Colour = (random.randint(10, 70),) * 3
    sheet = Sheet((width, height), paper)
    top = (height - row * len(lines)) / 2
    for number, (left, right) in enumerate(lines):
        y = top + row * (number + 0.5)
        if left == "-":
            sheet.dashes((7, y), (width - 7, y), ink, 1.0, random.choice((2, 4, width)))
        elif right:
            sheet.words((8, y), left, letters, ink, "lm")
            sheet.words((width - 8, y), right, letters, ink, "rm")
        else:
            sheet.words((width / 2, y), left, letters, ink, "mm")
    image = sheet.picture()
    return as_jpeg(image, random.randint(50, 92)) if random.random() < 0.25 else image


@dataclass(frozen=True)
class _Asker:
    """Draws questions about one receipt."""

    random: Random
    receipt: Receipt
    split: Split

    def said_as(self, kind: str, answer: str, /, wording: str = "", **names: str) -> Query:
        text = worded(self.random, RECEIPT[wording or kind], self.split, **names)
        return Query(kind, text, answer)

    def item(self) -> int:
        return self.random.randrange(len(self.receipt.items))

    def total(self) -> Query:
        return self.said_as("total", self.receipt.total)

    def price(self) -> Query:
        at = self.item()
        return self.said_as("price", self.receipt.price(at), item=self.receipt.items[at])

    def absent(self) -> Query:
        return self.said_as("absent", CANNOT_TELL, "price", item=self.random.choice(self.receipt.others))

    def date(self) -> Query:
        return self.said_as("date", self.receipt.date)

    def count(self) -> Query:
        return self.said_as("count", str(len(self.receipt.items)))

    def bought(self) -> Query:
        return self.said_as("bought", ", ".join(self.receipt.items))

    def shop(self) -> Query:
        return self.said_as("shop", self.receipt.shop)

    def extreme(self) -> Query | None:
        most = self.random.random() < 0.6
        cents = self.receipt.cents
        end = max(cents) if most else min(cents)
        if len(cents) < 2 or cents.count(end) > 1:
            return None
        return self.said_as("dearest" if most else "cheapest", self.receipt.items[cents.index(end)])

    def which(self) -> Query | None:
        at = self.item()
        if len(self.receipt.items) < 2 or self.receipt.cents.count(self.receipt.cents[at]) > 1:
            return None
        return self.said_as("which", self.receipt.items[at], price=self.receipt.price(at))


def _ask(random: Random, receipt: Receipt, split: Split, wanted: int) -> list[Query]:
    asker = _Asker(random, receipt, split)
    makers: dict[str, Callable[[], Query | None]] = {kind: getattr(asker, kind) for kind in (*WEIGHTS, "absent")}
    return ask_several(random, wanted, WEIGHTS, lambda kind: makers[kind](), twice="price")
