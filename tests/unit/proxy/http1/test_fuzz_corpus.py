"""The fuzzer's corpus through its targets, so that what was once found stays found."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS
from tests.support.paths import ROOT

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_every_target_has_a_corpus() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_corpus(path: Path) -> None:
    data = path.read_bytes()
    target = TARGETS[path.parent.name]
    target(data)
    for cut in range(len(data)):
        target(data[:cut])
        target(data[:cut] + data[cut + 1 :])
