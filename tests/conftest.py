"""Set-up for all tests. An engine test runs if a Docker Engine answers; with MESHD_REQUIRE_ENGINE=1
a missing engine is an error, not a skip."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

# Test helpers and models in bench/ are imported as `tests.…` and `bench.…`. The tree comes last, so
# that a compiled or installed build under test is not shadowed by the sources.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.support import left_open, ports
from tests.support.browser import page_problem

ENGINE_IMAGE = os.environ.get("MESHD_BASE_IMAGE", "meshd-base:bookworm")

# A busy machine may take its time over one example; a hang ends with the timeout of the test.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


COVERAGE_VARIABLE = "COVERAGE_PROCESS_CONFIG"
"""Where coverage.py hands its settings to the processes that are started."""


def engine_problem() -> str | None:
    """Return why engine tests cannot run here; None if they can."""
    try:
        done = subprocess.run(
            ["docker", "image", "inspect", "--format", "{{.Id}}", ENGINE_IMAGE],
            capture_output=True,
            check=False,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no Docker client answers ({error})"
    return None if done.returncode == 0 else (done.stderr.strip() or "no base image")


def prometheus_problem() -> str | None:
    """Return why tests with a real Prometheus cannot run here; None if they can."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


TOOLS_OF_ENGINE = ("chromium", "curl", "docker-registry", "h2load", "nghttp", "nginx")
"""Programs that `make test-tools` installs, so they are required together with the engine."""


def missing_tool(item: pytest.Item) -> str | None:
    """Return a program that a test needs and that is not installed; None if there is none."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    names = [name for marker in item.iter_markers("tool") for name in marker.args]
    return next((name for name in names if shutil.which(name, path=path) is None), None)


NEEDS = {"engine": engine_problem, "page": page_problem, "prometheus": prometheus_problem}
LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(left_open)
    if hasattr(config, "workerinput"):
        return
    config.pluginmanager.register(_OfStreams(config))
    problems = [
        problem for problem_of in NEEDS.values() if required() and (problem := problem_of())
    ]
    if problems:
        raise pytest.UsageError(f"MESHD_REQUIRE_ENGINE=1, but {'; '.join(problems)}")


def required() -> bool:
    """Whether a missing engine is an error."""
    return os.environ.get("MESHD_REQUIRE_ENGINE") == "1"


class _OfStreams:
    """Merge the lists of tests that the streams left out; each stream collected all tests. Also
    print each failure at once, not only in the summary at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._config.stash[LEFT_OUT] = node.workeroutput.get("left_out", [])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write(f"\nFAILED {report.nodeid} ({report.when})\n", red=True)
            crash = getattr(report.longrepr, "reprcrash", None)
            if crash is not None:
                terminal.write(f"{crash.message[:500]}\n")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    notes = config.stash[LEFT_OUT] = []
    _leave_out_long(config, items)
    for marker, problem_of in NEEDS.items():
        wanted = [item for item in items if item.get_closest_marker(marker)]
        problem = problem_of() if wanted else None
        if problem is None:
            continue
        if required():
            raise pytest.UsageError(f"MESHD_REQUIRE_ENGINE=1, but {problem}")
        notes.append(f"{len(wanted)} {marker} tests left out: {problem}; try `make test-tools`")
        chosen = set(map(id, wanted))
        items[:] = [item for item in items if id(item) not in chosen]
        config.hook.pytest_deselected(items=wanted)
    _leave_out_without_tools(config, items)


def _leave_out_long(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only `make acceptance` runs."""
    long = [item for item in items if item.get_closest_marker("acceptance")]
    if not long or os.environ.get("MESHD_ACCEPTANCE") == "1":
        return
    config.stash[LEFT_OUT].append(f"{len(long)} long tests left out: `make acceptance` runs them")
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if not item.get_closest_marker("acceptance")]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "_Streams":
    return _Streams(config, log)


OWN_ENGINE = (
    "tests/engine/test_bootstrap.py",
    "tests/engine/test_swarm.py",
    "tests/e2e/test_engine_outage.py",
)
"""Files whose tests start separate engines, in separate network namespaces."""


class _Streams(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Distribute tests by file, but run those of the shared engine one after the other in one
    stream: a test may list everything on the engine."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "engine" if on_engine(nodeid) and file not in OWN_ENGINE else file


def on_engine(nodeid: str) -> bool:
    """Whether a test uses the Docker Engine."""
    return nodeid.startswith(("tests/engine/", "tests/e2e/")) and "[process" not in nodeid


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure the coverage of an engine test's own process only, not of those that it starts: the
    test measures their time."""
    settings = os.environ.pop(COVERAGE_VARIABLE, None) if on_engine(item.nodeid) else None
    try:
        return (yield)
    finally:
        if settings is not None:
            os.environ[COVERAGE_VARIABLE] = settings


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = session.config.stash.get(LEFT_OUT, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for note in config.stash.get(LEFT_OUT, []):
        terminalreporter.write_line(note, yellow=True)


def _leave_out_without_tools(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = {id(item): name for item in items if (name := missing_tool(item))}
    for name in sorted(set(missing.values())):
        if required() and name in TOOLS_OF_ENGINE:
            raise pytest.UsageError(f"MESHD_REQUIRE_ENGINE=1, but {name} is not installed")
        count = list(missing.values()).count(name)
        config.stash[LEFT_OUT].append(f"{count} tests left out: {name} is not installed")
    if missing:
        config.hook.pytest_deselected(items=[item for item in items if id(item) in missing])
        items[:] = [item for item in items if id(item) not in missing]


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback where nothing listened a moment ago."""
    return ports.free_port()


@pytest.fixture
def engine_image() -> str:
    """An image with python3 that exists on the engine, so that no registry is needed."""
    return ENGINE_IMAGE
