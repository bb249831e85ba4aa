"""The part of the build that pyproject.toml cannot express: compile the request path with mypyc,
and build the web page.

Either all modules of `COMPILED` are compiled to C or none. The environment variable MESHD_COMPILE
decides: 0 leaves them as plain Python, as an editable install always does; with 1 a failure to
compile is an error. Without it they are compiled if there is a C compiler; a failure prints one
line.

The web page is built by `web/build.py` if there is Node; otherwise the package has none, which one
line says. With MESHD_PAGE=1 that is an error, with MESHD_PAGE=0 it is not built.
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

# One mypyc group, so that calls between these modules are C calls. Balancing rules work on
# `Candidate`, a protocol, and would not become faster; neither would what runs once per second.
COMPILED = [
    *(f"proxy/http1/{name}.py" for name in (
        "chunked", "fields", "framing", "limits", "partial", "request", "request_body",
        "request_template", "response", "response_template", "rewrite", "template", "websocket",
    )),
    *(f"proxy/policy/{name}.py" for name in (
        "admit", "backlog", "eject", "gradient", "hashing", "idle_age", "latency", "path_policy",
        "ratelimit", "retry", "route",
    )),
    *(f"proxy/http2/{name}.py" for name in (
        "abuse", "codec", "frames", "output", "request", "response",
    )),
    *(f"proxy/http2_downstream/{name}.py" for name in ("connection", "stream")),
    *(f"proxy/observe/{name}.py" for name in ("counters", "flight_ring", "histogram", "log_line")),
    *(f"proxy/tls/{name}.py" for name in ("counters", "handshake", "peer_transport", "transport")),
    "proxy/wire/buckets.py",
    "proxy/ipc/shared_memory.py",
    *(f"proxy/state/{name}.py" for name in (
        "concurrency_limits", "descriptors", "endpoint_state", "head_cache", "routing_table",
        "service_state", "trusted_networks",
    )),
    *(f"proxy/request/{name}.py" for name in (
        "accounting", "attempt", "client_connection", "connection_pool", "data_plane", "dispatch",
        "downstream", "exchange", "fast_path", "grpc_call", "half_close", "headers", "hedge",
        "mirror", "phases", "reachability", "resolve", "retry", "sinks", "tracing", "tunnel",
        "upstream",
    )),
    *(f"proxy/request_filters/{name}.py" for name in ("compression", "forward_auth")),
    *(f"proxy/http2/{name}.py" for name in ("grpc", "to_endpoint")),
    *(f"proxy/http2_upstream/{name}.py" for name in ("connection", "pool", "stream")),
    *(f"proxy/tcp/{name}.py" for name in (
        "accounting", "direction", "dispatch", "peer_dial", "peer_relay", "phases", "pipes",
        "poller", "session", "sessions", "sockets",
    )),
    *(f"proxy/worker/{name}.py" for name in ("accept_loop", "handover", "negotiated")),
]  # fmt: skip
COMPILER_PACKAGES = [
    "mypy>=1.18",
    "msgspec>=0.20",
    "ngh2>=0.3,<0.4; sys_platform == 'linux' and platform_machine in 'x86_64 aarch64'",
]
"""Needed to compile: mypyc, and packages whose types the modules use. Without ngh2, which has
wheels for these platforms, its values are untyped."""
COMPILE_SETTING = os.environ.get("MESHD_COMPILE", "")
DIRECT_CALLS = ["-fvisibility=hidden", "-fno-plt"] if sys.platform == "linux" else []
"""Options of GCC and Clang for calls between the compiled files without a detour through a table.
Each entry of the table would be one more piece of code that is seldom in the caches."""
CompileSources = Callable[..., list[str]]
BUILD_COMMANDS = {"bdist_wheel", "build", "build_ext", "install"}


def has_c_compiler() -> bool:
    """Return whether a file that includes Python.h can be compiled."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    with tempfile.TemporaryDirectory() as home:
        source = Path(home) / "try.c"
        source.write_text("#include <Python.h>\n")
        command += ["-I" + sysconfig.get_path("include"), "-c", str(source), "-o", os.devnull]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False


SHOULD_COMPILE = COMPILE_SETTING != "0" and has_c_compiler()


def report_not_compiled(reason: object) -> None:
    """Print why nothing is compiled. Raises SystemExit if MESHD_COMPILE is 1."""
    if COMPILE_SETTING == "1":
        raise SystemExit(f"meshd: the request path could not be compiled: {reason}")
    print(f"meshd: the request path is plain Python, not compiled: {reason}", file=sys.stderr)


def make_extensions() -> list[Extension]:
    """Return the extension modules to compile; empty for plain Python."""
    if COMPILE_SETTING == "0" or not BUILD_COMMANDS & set(sys.argv):
        return []
    if not SHOULD_COMPILE:
        report_not_compiled("no C compiler that finds Python.h")
        return []
    try:
        from mypyc.build import mypycify

        options = {"opt_level": "1", "debug_level": "0", "multi_file": True}
        made = list(mypycify(["--strict", *COMPILED], **options))
        for extension in made:
            extension.extra_compile_args = [*extension.extra_compile_args, *DIRECT_CALLS]
        return made
    except ImportError as error:
        report_not_compiled(error)
    except SystemExit:
        # mypyc exits like this after it has printed a type error.
        report_not_compiled("mypyc reported an error")
    return []


class BuildCompiled(build_ext):
    """Compiles files in parallel; removes all extension modules if one of them fails."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = os.cpu_count()

    def run(self) -> None:
        try:
            super().run()
        except Exception:
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            if COMPILE_SETTING == "1":
                raise
            report_not_compiled("the C compiler failed")

    def build_extensions(self) -> None:
        self.compiler.compile = compile_in_parallel(self.compiler.compile)
        super().build_extensions()


def compile_in_parallel(compile_all: CompileSources) -> CompileSources:
    """Return a function that compiles each source in its own compiler process."""

    def compile_each(sources: list[str], **options: Any) -> list[str]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = pool.map(lambda source: compile_all([source], **options), sources)
            return [file for object_files in compiled for file in object_files]

    return compile_each


def build_page() -> None:
    """Build the web page for the package. Raises SystemExit if MESHD_PAGE is 1 and that fails."""
    setting = os.environ.get("MESHD_PAGE", "")
    script = Path(__file__).with_name("web") / "build.py"
    if setting == "0" or not script.is_file() or not {"bdist_wheel", "build"} & set(sys.argv):
        return
    command = [sys.executable, str(script), *(["--require"] if setting == "1" else [])]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("meshd: the web page could not be built")


build_page()
setup(
    ext_modules=make_extensions(),
    cmdclass={"build_ext": BuildCompiled},
    setup_requires=COMPILER_PACKAGES if SHOULD_COMPILE else [],
)
