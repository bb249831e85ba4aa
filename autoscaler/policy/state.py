"""What the policy remembers between steps: frozen, and JSON-able so that it can be stored."""

from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class State:
    """Everything learned and seen. Treat as opaque; `dump` and `load` keep it."""

    started: float = 0.0
    desired: int = 0
    rates: tuple[float, ...] = ()
    needs: tuple[int, ...] = ()
    service_time: float = 0.0
    workers: float = 0.0
    last_arrival: float = 0.0


def dump(state: State) -> dict[str, Any]:
    """`state` as plain JSON values."""
    plain = msgspec.to_builtins(state)
    assert isinstance(plain, dict)
    return plain


def load(data: dict[str, Any]) -> State:
    """The state that `dump` gave. Raises ValueError when `data` is not one (for example of
    another version): the caller then starts from `initial`."""
    try:
        return msgspec.convert(data, State)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a stored autoscaler state: {error}") from error
