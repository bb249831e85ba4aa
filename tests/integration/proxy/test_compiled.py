"""The hot modules compiled to C behave like the Python ones: the same tests run against a build."""

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.paths import ROOT

BUILDS = ROOT / "build" / "tested"
TESTS = (
    "tests/unit/proxy/http1/test_response_template.py",
    "tests/unit/proxy/http1/test_chunked.py",
    "tests/unit/proxy/http1/test_properties.py",
    "tests/unit/proxy/http1/test_request.py",
    "tests/unit/proxy/http1/test_response.py",
    "tests/unit/proxy/http1/test_request_template.py",
    "tests/unit/proxy/http2",
    "tests/unit/proxy/observe/test_recording.py",
    "tests/unit/proxy/policy/test_eject.py",
    "tests/unit/proxy/policy/test_route.py",
    "tests/conformance",
    "tests/integration/proxy/test_exchange.py",
    "tests/integration/proxy/test_exchange_callers.py",
    "tests/integration/proxy/test_exchange_failures.py",
    "tests/integration/proxy/test_exchange_retry.py",
    "tests/integration/proxy/test_exchange_routes.py",
    "tests/integration/proxy/test_exchange_snapshots.py",
    "tests/integration/proxy/test_exchange_streaming.py",
    "tests/integration/proxy/test_exchange_waiting.py",
    "tests/integration/proxy/test_fast_path.py",
    "tests/integration/proxy/test_http2.py",
    "tests/integration/proxy/test_http2_rules.py",
    "tests/integration/proxy/test_http2_tunnels.py",
    "tests/integration/proxy/test_proxy_protocol.py",
    "tests/integration/proxy/test_tcp.py",
    "tests/integration/proxy/test_tls.py",
    "tests/integration/proxy/test_tls_passthrough.py",
    "tests/integration/proxy/test_upstream_tls.py",
    "tests/integration/proxy/test_http2_upstream.py",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_compiled_build_passes_the_tests_of_the_plain_one(tmp_path: Path) -> None:
    built = build_of(digest(), tmp_path)
    environment = {"PYTHONPATH": str(built)}
    where = "import proxy.request.fast_path as u; print(u.__file__)"
    found = run([sys.executable, "-P", "-c", where], environment).strip()
    assert found.startswith(str(built))
    assert found.endswith(".so"), "nothing was compiled"
    # They wait more than they work.
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-n", "4", "-W", "error", "-p"]
    run([*command, "no:cacheprovider", *TESTS], environment)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_files_call_each_other_directly(tmp_path: Path) -> None:
    """A function that another library could replace is called through a table."""
    (library,) = build_of(digest(), tmp_path).glob("*__mypyc*.so")
    symbols = run(["nm", "--dynamic", "--defined-only", str(library)], {}).splitlines()
    assert symbols
    assert [each for each in symbols if not each.split()[-1].startswith("PyInit_")] == []


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("exit 1", "no C compiler"),
        ('case "$*" in *try.c*) exit 0;; esac; exit 1', "failed"),
    ],
)
@pytest.mark.timeout(300)
def test_a_failed_compilation_builds_plain_python(tmp_path: Path, compiler: str, said: str) -> None:
    broken = tmp_path / "cc"
    broken.write_text(f"#!/bin/sh\n{compiler}\n")
    broken.chmod(0o755)
    tree = copy_to(tmp_path / "tree")
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "built")]
    environment = {"CC": str(broken), "MYPY_CACHE_DIR": str(BUILDS / "types")}
    output = run(command, {**environment, "MESHD_COMPILE": ""}, tree)
    (line,) = [line for line in output.splitlines() if line.startswith("meshd: ")]
    assert "plain Python" in line
    assert said in line
    assert not list(tmp_path.rglob("*.so"))
    done = subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, **environment, "MESHD_COMPILE": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode, "it was asked for, and is not there"


def digest() -> str:
    """Return a digest of everything that the build is made of."""
    summed = hashlib.sha256(f"{sys.version} {version('mypy')}".encode())
    for path in [ROOT / "setup.py", *sorted((ROOT / "proxy").rglob("*.py"))]:
        summed.update(path.name.encode() + b"\0" + path.read_bytes())
    return summed.hexdigest()[:16]


def build_of(name: str, home: Path) -> Path:
    """Return a build of these sources: the one of an earlier run if it exists, or a new one."""
    kept = BUILDS / name
    if kept.exists():
        return kept
    tree, built = copy_to(home / "tree"), home / "built"
    run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", built],
        {"MESHD_COMPILE": "1", "MYPY_CACHE_DIR": str(BUILDS / "types")},
        tree,
    )
    shutil.copytree(tree / "proxy", built / "proxy", dirs_exist_ok=True)
    for older in BUILDS.glob("[0-9a-f]" * 16):
        shutil.rmtree(older)
    BUILDS.mkdir(parents=True, exist_ok=True)
    shutil.move(built, kept)
    return kept


def copy_to(tree: Path) -> Path:
    """Copy the sources to where compiling may leave files."""
    tree.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(ROOT / "proxy", tree / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def run(command: list[str | Path], more: dict[str, str], cwd: Path = ROOT) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr
