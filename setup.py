"""The build, where it needs more than pyproject.toml can say: the modules that every request goes
through are compiled to C by mypyc, all of them or none.

MESHD_COMPILE=0 leaves them the plain Python that they are written in, as an editable install
always does; with 1 it is an error where they cannot be compiled. Without either they are compiled
where a C compiler is found, and where it fails in spite of that one line says so.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# All of one group, so that calls between them are calls of C functions. The rules that work on
# `Candidate`, a protocol, and whatever is asked once a second would gain nothing.
COMPILED = [
    *(f"proxy/http1/{name}.py" for name in (
        "chunked", "fields", "framing", "limits", "partial", "request", "request_template",
        "response", "response_template", "rewrite", "template",
    )),
    *(f"proxy/policy/{name}.py" for name in (
        "admit", "eject", "gradient", "hashing", "latency", "ratelimit", "retry", "route",
    )),
    *(f"proxy/observe/{name}.py" for name in ("counters", "histogram", "log_line")),
    "proxy/wire/buckets.py",
    "proxy/ipc/shared_memory.py",
    *(f"proxy/state/{name}.py" for name in (
        "concurrency_limits", "endpoint_state", "head_cache", "routing_table", "service_state",
        "trusted_networks",
    )),
    *(f"proxy/request/{name}.py" for name in (
        "accounting", "connection_pool", "data_plane", "dispatch", "downstream", "exchange",
        "fast_path", "half_close", "headers", "hedge", "mirror", "phases", "resolve", "retry",
        "tracing", "tunnel", "upstream",
    )),
]  # fmt: skip
COMPILER = ["mypy>=1.18", "msgspec>=0.20"]
"""What compiling needs: the compiler, and the types of what the modules import."""
ASKED = os.environ.get("MESHD_COMPILE", "")
Compile = Callable[..., list[str]]
BUILDS = {"bdist_wheel", "build", "build_ext", "install"}


def has_c_compiler() -> bool:
    """Whether something that includes Python.h can be compiled here."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    with tempfile.TemporaryDirectory() as home:
        source = Path(home) / "try.c"
        source.write_text("#include <Python.h>\n")
        command += ["-I" + sysconfig.get_path("include"), "-c", str(source), "-o", os.devnull]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False


WANTED = ASKED != "0" and has_c_compiler()


def plainly(why: object) -> None:
    """Says that nothing is compiled, and why; ends the build where that was not asked for."""
    if ASKED == "1":
        raise SystemExit(f"meshd: the request path could not be compiled: {why}")
    print(f"meshd: the request path is plain Python, not compiled: {why}", file=sys.stderr)


def extensions() -> list[Extension]:
    """What is to be compiled."""
    if ASKED == "0" or not BUILDS & set(sys.argv):
        return []
    if not WANTED:
        plainly("no C compiler that finds Python.h")
        return []
    try:
        from mypyc.build import mypycify

        options = {"opt_level": "1", "debug_level": "0", "multi_file": True}
        return list(mypycify(["--strict", *COMPILED], **options))
    except ImportError as error:
        plainly(error)
    except SystemExit:
        # So mypyc ends where it finds an error, having told it.
        plainly("mypyc has refused it")
    return []


class Build(build_ext):
    """Compiles files side by side, and takes back what it made where one of them fails."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = os.cpu_count()

    def run(self) -> None:
        try:
            super().run()
        except Exception:
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            if ASKED == "1":
                raise
            plainly("the C compiler failed")

    def build_extensions(self) -> None:
        self.compiler.compile = side_by_side(self.compiler.compile)
        super().build_extensions()


def side_by_side(compile_all: Compile) -> Compile:
    """The same, with a process for each of the sources."""

    def compile_each(sources: list[str], **options: Any) -> list[str]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda source: compile_all([source], **options), sources)
            return [each for objects in made for each in objects]

    return compile_each


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": Build},
    setup_requires=COMPILER if WANTED else [],
)
