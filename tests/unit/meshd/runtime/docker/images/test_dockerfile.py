"""The ports that a Dockerfile declares."""

import pytest

from meshd.runtime.docker.images.dockerfile import declared_ports

STAGES = """
ARG BASE=python:3.12
ARG PORT=9000
FROM node AS build
EXPOSE 1234
FROM ${BASE} AS web
ARG PORT
EXPOSE $PORT 8443/tcp \\
   53/udp
FROM web as final
ENV MORE=7000 OTHER 1
EXPOSE ${MORE} ${NONE:-7001}
"""


@pytest.mark.parametrize(
    ("text", "arguments", "target", "ports", "base"),
    [
        ("FROM nginx", {}, "", set(), "nginx"),
        ("FROM scratch\nEXPOSE 80", {}, "", {80}, ""),
        ("from --platform=$BUILDPLATFORM nginx:1\nexpose 80 8000-8002", {}, "",
         {80, 8000, 8001, 8002}, "nginx:1"),
        (STAGES, {}, "", {9000, 8443, 7000, 7001}, "python:3.12"),
        (STAGES, {"PORT": "9001", "BASE": "other"}, "web", {9001, 8443}, "other"),
        (STAGES, {}, "build", {1234}, "node"),
        (STAGES, {}, "0", {1234}, "node"),
        ("FROM a\n# EXPOSE 1\nRUN <<EOF\nEXPOSE 2\nEOF\nEXPOSE 3", {}, "", {3}, "a"),
        ("FROM a\nENV PORT 4000\nEXPOSE $PORT", {}, "", {4000}, "a"),
        ("FROM a\nEXPOSE $UNKNOWN x 70000 5/sctp", {}, "", set(), "a"),
        ("", {}, "", set(), ""),
    ],
)  # fmt: skip
def test_declared_ports(
    text: str, arguments: dict[str, str], target: str, ports: set[int], base: str
) -> None:
    assert declared_ports(text, arguments, target) == (ports, base)
