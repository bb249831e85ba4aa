"""Signals by name and number, as the engine knows them."""

import pytest

from meshd.spec.signals import parse_signal


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("15", 15),
        ("TERM", 15),
        ("sigquit", 3),
        ("SIGWINCH", 28),
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmin+15", 49),
        ("SIGRTMAX-14", 50),
        ("SIGRTMAX", 64),
        ("64", 64),
        ("", None),
        ("0", None),
        ("65", None),
        ("SIGWHAT", None),
        ("SIGRTMIN+16", None),
        ("SIGRTMIN+0", None),
        ("SIGRTMIN-1", None),
        ("SIGRTMAX-15", None),
    ],
)
def test_signals(text: str, number: int | None) -> None:
    assert parse_signal(text) == number
