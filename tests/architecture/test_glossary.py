"""The glossary of types shows the classes and docstrings as they are."""

from docs import glossary


def test_the_glossary_is_up_to_date() -> None:
    assert glossary.PAGE.read_text() == glossary.render(), "run `python -m docs.glossary`"


def test_every_public_type_has_a_meaning() -> None:
    missing = [
        f"{folder}: {name}"
        for package in glossary.PACKAGES
        for folder, name, meaning in glossary.types_in(package)
        if not meaning
    ]
    assert not missing, "give them a docstring"
