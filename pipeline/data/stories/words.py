"""Names, things and containers that the stories of the embedded set use. The reader also accepts any others."""

from typing import NamedTuple


class Topic(NamedTuple):
    """A topic of stories."""

    things: tuple[str, ...]
    """Plurals."""
    containers: tuple[str, ...]
    """Singulars."""


NAMES = (
    "Mia", "Leo", "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ivy", "Jack", "Kate", "Liam",
    "Maya", "Noah", "Olivia", "Paul", "Quinn", "Rosa", "Sam", "Tina", "Umar", "Vera", "Will", "Yara", "Zoe", "Omar",
    "Nina", "Hugo",
)  # fmt: skip
TOPICS = {
    "fruit": Topic(("apples", "pears", "oranges", "plums", "lemons", "peaches"), ("basket", "bag", "crate", "bowl")),
    "vegetables": Topic(("carrots", "onions", "potatoes", "peppers", "turnips"), ("sack", "crate", "basket", "box")),
    "toys": Topic(("marbles", "dolls", "robots", "puzzles", "blocks"), ("box", "chest", "bag", "drawer")),
    "books": Topic(("books", "comics", "magazines", "notebooks", "atlases"), ("box", "pile", "case", "bag")),
    "sweets": Topic(("candies", "lollipops", "toffees", "mints", "caramels"), ("jar", "packet", "tin", "bag")),
    "stamps": Topic(("stamps", "postcards", "stickers", "badges", "posters"), ("album", "folder", "packet", "box")),
    "flowers": Topic(("roses", "tulips", "daisies", "lilies", "violets"), ("vase", "bucket", "bunch", "pot")),
    "nature": Topic(("stones", "shells", "feathers", "acorns", "pebbles"), ("jar", "bucket", "pouch", "tin")),
    "school": Topic(("pencils", "crayons", "erasers", "markers", "rulers"), ("case", "box", "cup", "tray")),
    "sports": Topic(("balls", "rackets", "helmets", "medals", "whistles"), ("net", "bag", "locker", "box")),
    "baking": Topic(("muffins", "cookies", "rolls", "waffles", "pretzels"), ("tray", "tin", "bag", "box")),
    "crafts": Topic(("beads", "buttons", "ribbons", "candles", "needles"), ("pouch", "jar", "drawer", "packet")),
    "tools": Topic(("screws", "nails", "bolts", "hooks", "brushes"), ("box", "bucket", "tin", "bin")),
}
SETTINGS = {
    "fruit": ("the grocery", "the market", "the cafe", "the hotel"),
    "vegetables": ("the farm", "the kitchen", "the canteen", "the shop"),
    "baking": ("the bakery", "the restaurant", "the office", "the hospital"),
    "tools": ("the workshop", "the garage", "the warehouse", "the carpenter"),
    "flowers": ("the nursery", "the florist", "the museum", "the theatre"),
    "books": ("the library", "the college", "the bookstore", "the club"),
    "school": ("the factory", "the supplier", "the school", "the studio"),
}
"""Topic -> places for practical stories about it."""
FRIENDS = ("friend", "cousin", "classmate", "neighbour", "child", "teammate")
COINS = ("dollars", "euros", "pounds", "cents")
LEADS = ("Then ", "Later ", "The next day ", "A week later ", "After lunch ", "On Sunday ")
_IRREGULAR = {"child": "children", "person": "people"}
_TOPIC_OF = {thing: name for name, topic in TOPICS.items() for thing in topic.things}


def topic_of(thing: str) -> str | None:
    """The topic that a thing belongs to; None if it belongs to none."""
    return _TOPIC_OF.get(thing)


def plural(noun: str) -> str:
    """The plural: ``jars``, ``boxes``, ``bunches``, ``children``."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"


def is_plural_of(many: str, one: str) -> bool:
    """True for ``plural(one)``, and for plurals such as ``shelves`` of ``shelf`` and ``potatoes`` of ``potato``."""
    return many in (plural(one), f"{one}es", f"{one[:-1]}ves", f"{one[:-2]}ves")


_CONTAINERS = {container for topic in TOPICS.values() for container in topic.containers}
OWN_WORDS = {
    "container": _CONTAINERS,
    "containers": set(map(plural, _CONTAINERS)),
    "friend": set(FRIENDS),
    "friends": set(map(plural, FRIENDS)),
    "coins": set(COINS),
}
"""Gap of a sentence -> the words that our own stories have there."""
