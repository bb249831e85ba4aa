"""The page of state machines shows the transition tables as they are."""

from docs import diagrams


def test_the_page_of_state_machines_is_up_to_date() -> None:
    text = diagrams.PAGE.read_text()
    assert diagrams.page(text) == text, "run `python -m docs.diagrams`"


def test_every_state_that_follows_is_a_state_of_its_table() -> None:
    for name, table in diagrams.TABLES.items():
        following = {state for states in table.values() for state in states}
        assert following <= set(table), name
