"""A catalogue of a few thousand restaurants, the same on every replica of `restaurants`."""

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
    """One dish; `price` is in cents."""

    id: int
    name: str
    price: int


@dataclass(frozen=True)
class Restaurant:
    """One restaurant with its menu; `rating` is from 0 to 5."""

    id: int
    name: str
    cuisine: str
    rating: float
    menu: tuple[Dish, ...]

    def summary(self) -> dict[str, object]:
        """Return what a search result shows: all fields but the menu."""
        return {key: value for key, value in asdict(self).items() if key != "menu"}


@cache
def restaurants(count: int = 3000, seed: int = 7) -> tuple[Restaurant, ...]:
    """Return `count` random restaurants; the same seed gives the same ones. Ids start at 1."""
    source = random.Random(seed)
    return tuple(_restaurant(number, source) for number in range(1, count + 1))


def _restaurant(number: int, source: random.Random) -> Restaurant:
    cuisine = source.choice(CUISINES)
    menu = tuple(
        Dish(id, f"{cuisine} {dish}", source.randrange(600, 2400, 50))
        for id, dish in enumerate(_DISHES, start=1)
    )
    name = f"{source.choice(_FIRST)} {cuisine.title()} {source.choice(_LAST)} {number}"
    return Restaurant(number, name, cuisine, round(source.uniform(2.5, 5.0), 1), menu)


@cache
def _index() -> tuple[tuple[str, Restaurant], ...]:
    """Return the restaurants with the text that a search matches, best rated first."""
    ranked = sorted(restaurants(), key=lambda r: (-r.rating, r.id))
    return tuple((f"{r.name} {r.cuisine}".lower(), r) for r in ranked)


@lru_cache(maxsize=512)
def search(query: str, limit: int = 20) -> tuple[Restaurant, ...]:
    """Return restaurants whose name or cuisine contains every word of the query, best rated
    first."""
    words = query.lower().split()
    matches = (r for text, r in _index() if all(word in text for word in words))
    return tuple(islice(matches, limit))


def find(id: int) -> Restaurant | None:
    """Return the restaurant with that id; None if it does not exist."""
    every = restaurants()
    return every[id - 1] if 1 <= id <= len(every) else None
