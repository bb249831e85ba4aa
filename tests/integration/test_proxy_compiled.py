"""The hot modules compiled to C do what they do as Python: the same tests, run against a build."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("autoscaler", "demo_services", "meshd", "proxy", "pyproject.toml", "setup.py")
SOURCES += ("README.md", "LICENSE")
TESTS = (
    "tests/unit/test_proxy_http1_chunked.py",
    "tests/unit/test_proxy_http1_properties.py",
    "tests/unit/test_proxy_http1_requests.py",
    "tests/unit/test_proxy_http1_responses.py",
    "tests/unit/test_proxy_http1_shape.py",
    "tests/unit/test_proxy_observe_recording.py",
    "tests/unit/test_proxy_policy_eject.py",
    "tests/unit/test_proxy_policy_route.py",
    "tests/conformance",
    "tests/integration/test_proxy_exchange.py",
    "tests/integration/test_proxy_exchange_policies.py",
    "tests/integration/test_proxy_usual.py",
)
# It changes a constant, which the compiler has put in its place already.
BUT = "tests/integration/test_proxy_exchange.py::test_a_slow_head_is_408"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_compiled_form_passes_the_tests_of_the_plain_one(tmp_path: Path) -> None:
    tree, built = tmp_path / "tree", tmp_path / "built"
    tree.mkdir()
    for name in SOURCES:
        one = ROOT / name
        if one.is_dir():
            shutil.copytree(one, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(one, tree / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(
        [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, tree],
        {"MESHD_COMPILE": "1", "CFLAGS": "-O1"},
    )
    (wheel,) = tmp_path.glob("*.whl")
    run([*pip, "install", "-q", "--no-deps", "--target", built, wheel], {})
    assert list((built / "proxy").glob("usual.*.so")), "nothing was compiled"
    where = "import proxy.usual as u; print(u.__file__)"
    environment = {"PYTHONPATH": str(built)}
    assert str(built) in run([sys.executable, "-P", "-c", where], environment)
    pytest_command = [sys.executable, "-P", "-m", "pytest", "-q", "-W", "error", "-p"]
    run([*pytest_command, "no:cacheprovider", *TESTS, "--deselect", BUT], environment)


def run(command: list[str | Path], more: dict[str, str]) -> str:
    """What a command that must succeed says."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
