"""Join tokens as text."""

import pytest

from meshd.node_proxy.authority import MeshAuthority, make_authority
from meshd.node_proxy.join_token import PREFIX, BadToken, JoinToken, read_text, to_text

NOW = 1_800_000_000.0


def test_a_token_survives_as_one_line() -> None:
    authority = MeshAuthority(*make_authority(NOW))
    key, certificate = authority.issue_join("abc", NOW, 60.0)
    token = JoinToken(authority.certificate, certificate, key)
    text = to_text(token)
    assert text.startswith(PREFIX)
    assert len(text) < 1400
    assert read_text(f" {text}\n") == token


@pytest.mark.parametrize("end", [10, 200, 700, -2])
def test_a_part_of_a_token_is_refused_without_showing_it(end: int) -> None:
    authority = MeshAuthority(*make_authority(NOW))
    key, certificate = authority.issue_join("abc", NOW, 60.0)
    text = to_text(JoinToken(authority.certificate, certificate, key))
    with pytest.raises(BadToken) as error:
        read_text(text[:end])
    assert text[20:40] not in str(error.value)


OTHERS = ("", "SWMTKN-1-abc", "meshd-join-1-", "meshd-join-1-ä", PREFIX + "wA")


@pytest.mark.parametrize("text", OTHERS)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(BadToken, match="token is not"):
        read_text(text)
