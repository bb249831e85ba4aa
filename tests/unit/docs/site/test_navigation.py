"""Every page of the site is in its navigation, once."""

from collections import Counter

from docs.site.navigation import HOW_TO, SECTIONS, arrange
from docs.site.stage import page_names


def test_every_page_is_in_the_navigation_once() -> None:
    found = Counter(page for section in arrange(page_names()) for page in section.pages)
    assert set(found) == page_names()
    assert set(found.values()) == {1}


def test_every_page_of_the_navigation_exists_and_has_a_description() -> None:
    named = {page: text for section in SECTIONS for page, text in section.pages.items()}
    assert named.keys() <= page_names()
    assert all(named.values())


def test_a_page_without_a_place_is_a_how_to_guide() -> None:
    (section,) = arrange({"a-new-page"})
    assert (section.title, section.pages) == (HOW_TO, {"a-new-page": ""})
