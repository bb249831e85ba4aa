"""A catalogue of a few thousand restaurants, the same on every replica."""

import random
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from itertools import islice

CUISINES = ("thai", "pizza", "sushi", "burger", "vegan", "indian", "greek", "ramen", "tacos")
_FIRST = ("Golden", "Little", "Old", "Blue", "Happy", "Royal", "Green", "Corner", "Lucky", "Urban")
_LAST = ("Garden", "Kitchen", "House", "Table", "Palace", "Bowl", "Oven", "Market", "Grill", "Bar")
_DISHES = ("special", "classic", "deluxe", "small plate", "family box", "lunch menu")


@dataclass(frozen=True)
class Dish:
    """One dish; the price is in cents."""

    id: int
    name: str
    price: int


@dataclass(frozen=True)
class Restaurant:
    """One restaurant with its menu; the rating is out of 5."""

    id: int
    name: str
    cuisine: str
    rating: float
    menu: tuple[Dish, ...]

    def summary(self) -> dict[str, object]:
        """What a search result shows: all but the menu."""
        return {key: value for key, value in asdict(self).items() if key != "menu"}


@cache
def restaurants(count: int = 3000, seed: int = 7) -> tuple[Restaurant, ...]:
    """`count` restaurants drawn from `seed`; ids run from 1."""
    dice = random.Random(seed)
    return tuple(_restaurant(number, dice) for number in range(1, count + 1))


def _restaurant(number: int, dice: random.Random) -> Restaurant:
    cuisine = dice.choice(CUISINES)
    menu = tuple(
        Dish(place, f"{cuisine} {dish}", dice.randrange(600, 2400, 50))
        for place, dish in enumerate(_DISHES, start=1)
    )
    name = f"{dice.choice(_FIRST)} {cuisine.title()} {dice.choice(_LAST)} {number}"
    return Restaurant(number, name, cuisine, round(dice.uniform(2.5, 5.0), 1), menu)


@cache
def _index() -> tuple[tuple[str, Restaurant], ...]:
    """The catalogue by what a search looks in, best rated first."""
    ranked = sorted(restaurants(), key=lambda r: (-r.rating, r.id))
    return tuple((f"{r.name} {r.cuisine}".lower(), r) for r in ranked)


@lru_cache(maxsize=512)
def search(words: str, limit: int = 20) -> tuple[Restaurant, ...]:
    """Restaurants whose name or cuisine has every word of `words`, best rated first."""
    wanted = words.lower().split()
    found = (r for text, r in _index() if all(word in text for word in wanted))
    return tuple(islice(found, limit))


def find(number: int) -> Restaurant | None:
    """The restaurant of that id, if there is one."""
    every = restaurants()
    return every[number - 1] if 1 <= number <= len(every) else None
