"""Word problems (gsm8k): generated sums with one to three steps, answered in GSM8K's format."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from unipeft_run.miniatures.sources.rows import Row, write_splits
from unipeft_run.miniatures.sources.split import Splits, deduplicate, split_by_hash

PEOPLE = ("Ana", "Ben", "Carla", "Dan", "Elena", "Filip", "Grace", "Hugo", "Irina", "Jonas")
THINGS = ("apples", "books", "coins", "stamps", "marbles", "pencils", "shells", "stickers")
BOXES = ("boxes", "bags", "baskets", "drawers", "shelves")
SEED, DRAWN = 42, 9000
SHARE = 0.06  # of the problems, in each held-out split

Problem = tuple[str, list[str], int]  # question, steps, answer
Draw = random.Random


def gain(draw: Draw, who: str, what: str) -> Problem:
    a, b = draw.randint(2, 60), draw.randint(2, 39)
    steps = [f"{a} + {b} = {a + b}"]
    return f"{who} has {a} {what} and gets {b} more. How many {what} has {who}?", steps, a + b


def loss(draw: Draw, who: str, what: str) -> Problem:
    a = draw.randint(10, 99)
    b = draw.randint(2, a - 1)
    text = f"{who} has {a} {what} and gives away {b}. How many {what} are left?"
    return text, [f"{a} - {b} = {a - b}"], a - b


def groups(draw: Draw, who: str, what: str) -> Problem:
    a, b, box = draw.randint(2, 12), draw.randint(2, 12), draw.choice(BOXES)
    text = f"{who} has {a} {box} with {b} {what} in each. How many {what} has {who}?"
    return text, [f"{a} * {b} = {a * b}"], a * b


def share(draw: Draw, who: str, what: str) -> Problem:
    a, b = draw.randint(2, 12), draw.randint(2, 12)
    text = f"{who} shares {a * b} {what} equally among {b} friends. How many does each friend get?"
    return text, [f"{a * b} / {b} = {a}"], a


def gain_and_loss(draw: Draw, who: str, what: str) -> Problem:
    a, b = draw.randint(2, 50), draw.randint(2, 40)
    c = draw.randint(1, a + b - 1)
    text = f"{who} has {a} {what}, buys {b} and sells {c}. How many {what} has {who} now?"
    return text, [f"{a} + {b} = {a + b}", f"{a + b} - {c} = {a + b - c}"], a + b - c


def groups_and_loss(draw: Draw, who: str, what: str) -> Problem:
    a, b, box = draw.randint(2, 10), draw.randint(2, 10), draw.choice(BOXES)
    c = draw.randint(1, a * b - 1)
    text = f"{who} has {a} {box} with {b} {what} in each and loses {c} {what}. How many are left?"
    return text, [f"{a} * {b} = {a * b}", f"{a * b} - {c} = {a * b - c}"], a * b - c


def two_people(draw: Draw, who: str, what: str) -> Problem:
    a, b = draw.randint(2, 40), draw.randint(2, 30)
    other = draw.choice([person for person in PEOPLE if person != who])
    text = f"{who} has {a} {what}. {other} has {b} more than {who}. How many have they together?"
    total = a + a + b
    return text, [f"{a} + {b} = {a + b}", f"{a} + {a + b} = {total}"], total


def price(draw: Draw, who: str, what: str) -> Problem:
    a, b = draw.randint(2, 9), draw.randint(2, 9)
    change = draw.randint(1, 20)
    text = (
        f"{who} buys {a} {what} for {b} dollars each and pays with {a * b + change} dollars. "
        "How many dollars does the shop give back?"
    )
    return text, [f"{a} * {b} = {a * b}", f"{a * b + change} - {a * b} = {change}"], change


def three_days(draw: Draw, who: str, what: str) -> Problem:
    a, b, half = draw.randint(2, 30), draw.randint(2, 30), draw.randint(1, 15)
    text = (
        f"{who} finds {a} {what} on Monday, {b} on Tuesday and {2 * half} on Wednesday, and loses "
        f"half of those found on Wednesday. How many {what} are left?"
    )
    kept = a + b + half
    steps = [f"{2 * half} / 2 = {half}", f"{a} + {b} = {a + b}", f"{a + b} + {half} = {kept}"]
    return text, steps, kept


KINDS: tuple[Callable[[Draw, str, str], Problem], ...] = (
    *(gain, loss, groups, share, gain_and_loss, groups_and_loss, two_people, price, three_days),
)


def generate(number: int, seed: int) -> Iterator[Row]:
    """Yield rows `question`, `answer` (the steps, then `#### result`), `kind` and `numbers`."""
    draw = random.Random(seed)
    for _ in range(number):
        kind = draw.choice(KINDS)
        question, steps, result = kind(draw, draw.choice(PEOPLE), draw.choice(THINGS))
        lines = [f"{step}." for step in steps]
        answer = "\n".join([*lines, f"#### {result}"])
        yield {"question": question, "answer": answer, "kind": kind.__name__, "sum": steps}


def numbers_key(row: Row) -> str:
    """Return the kind and its sums: the same problem about other people and things is equal."""
    return f"{row['kind']}: {row['sum']}"


def split_problems() -> Splits:
    """Return the problems of each split."""
    rows = deduplicate(generate(DRAWN, SEED), numbers_key)
    return split_by_hash(rows, numbers_key, validation=SHARE, test=SHARE)


def build(folder: Path) -> None:
    """Write the splits to `folder`."""
    source = {
        "what": f"generated word problems of {len(KINDS)} kinds, with one to three steps",
        "package": None,
        "licence": "Apache-2.0 (generated by this package)",
        "split": "hash of the kind and the numbers: no problem in two splits, whoever it is about",
    }
    write_splits(folder, split_problems(), source)
