"""Codes of sign-in links, the parts of a session's secret, and the files of the page."""

import gzip
from pathlib import Path

from meshd.model.access import Identity, Role
from meshd.ui.assets import load_assets
from meshd.ui.sign_in import CODE_SECONDS, MAX_CODES, SignInCodes, split_secret

ANN = Identity("ann", Role.OPERATE, "shop", "socket")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_code_is_valid_once_and_for_two_minutes() -> None:
    clock = Clock()
    codes = SignInCodes(clock)
    first, second = codes.create(ANN), codes.create(ANN)
    assert len(first) > 40
    assert first != second
    assert codes.use("other") is None
    assert codes.use(first) == ANN
    assert codes.use(first) is None
    clock.now += CODE_SECONDS
    assert codes.use(second) is None


def test_codes_are_bounded() -> None:
    codes = SignInCodes(Clock())
    made = [codes.create(ANN) for _ in range(MAX_CODES + 1)]
    assert codes.use(made[0]) is None
    assert codes.use(made[1]) == ANN


def test_neither_part_of_a_secret_has_less_than_120_bits() -> None:
    secret = "meshd_0a0b0c0d_" + "x" * 43
    first, rest = split_secret(secret)
    assert first + rest == secret
    assert min(len(first.rpartition("_")[2]), len(rest)) * 6 >= 120


def test_the_files_of_a_page_are_loaded_if_it_was_built(tmp_path: Path) -> None:
    assert load_assets(tmp_path) == {}
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "assets" / "main-A.js").write_text("1;")
    (tmp_path / "source.sha256").write_text("x")
    found = load_assets(tmp_path)
    assert sorted(found) == ["assets/main-A.js", "index.html"]
    script = found["assets/main-A.js"]
    assert (script.media, script.content) == ("text/javascript; charset=utf-8", b"1;")
    assert gzip.decompress(script.compressed) == b"1;"
