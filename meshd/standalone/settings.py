"""The settings of a standalone proxy: a YAML file, overridden by command-line flags.

Read by `meshd.cli.commands.proxy` and, on a reload, by `meshd.standalone.helper`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from meshd.spec.errors import Diagnostics, Location, Problem, SpecError, suggest
from meshd.spec.model import Mesh, Percent, UpstreamTlsSpec
from meshd.spec.model.proxy_settings import (
    ProxySettings,
    expand_access_log,
    expand_otlp,
    find_unused_listeners,
)
from meshd.spec.reader import route_files, shorthand, upstream_files
from meshd.spec.reader.mesh import describe_expected
from meshd.spec.source.yaml_tree import SourceNode, parse_yaml
from meshd.standalone import listeners
from meshd.standalone.tcp_settings import TcpPort, name_ports
from meshd.standalone.upstream_address import UpstreamAddress
from proxy.ipc import address

RawSettings = dict[str, Any]
_NOT_APPLICABLE: Final = ("port", "scale", "allow", "audit", "enforce")
"""Keys of `x-mesh` that concern replicas; a standalone proxy starts none."""


class StandaloneSettings(ProxySettings):
    """The settings of `meshd proxy`.

    - `listen`: the addresses to accept connections on
    - `to`: the addresses to balance over; empty with `tcp` only
    - `tcp`: the addresses whose connections are passed on as they are
    - `mirror`: addresses that get a copy of requests, unless a route has its own `mirror`
    - `mirror_share`: the share of the requests that is copied
    - `workers`: the number of worker processes
    - `admin`: the address of `/metrics` and `/healthz`; empty for none
    - `pid_file`: the path of the PID file; empty for none
    - `state`: the directory of certificates from a certificate authority
    - `mesh`: the policies
    - `probes`: whether endpoints are probed
    """

    listen: tuple[str, ...] = ("127.0.0.1:8080",)
    to: tuple[UpstreamAddress, ...] = ()
    tcp: tuple[TcpPort, ...] = ()
    mirror: tuple[UpstreamAddress, ...] = ()
    mirror_share: Percent = 1.0
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    admin: str = ""
    pid_file: str = ""
    state: str = ""
    mesh: Mesh = Mesh()
    probes: bool = False

    @model_validator(mode="before")
    @classmethod
    def _expand_listen(cls, raw: object) -> object:
        """Move the settings of addresses in `listen` to `listeners`."""
        if not isinstance(raw, dict):
            return raw
        listen = raw.get("listen")
        each = [listen] if isinstance(listen, str | dict) else listen
        if not isinstance(each, list) or not any(isinstance(item, dict) for item in each):
            return raw
        addresses: list[object] = []
        listeners = dict(raw.get("listeners") or {})
        for item in each:
            if isinstance(item, dict) and isinstance(item.get("address"), str):
                own = {key: value for key, value in item.items() if key != "address"}
                name = item["address"]
                addresses.append(name)
                if own and name in listeners:
                    raise ValueError(f"listen and listeners both have settings of {name}")
                if own:
                    listeners[name] = own
            else:
                addresses.append(item)
        return {**raw, "listen": addresses, "listeners": listeners}

    @model_validator(mode="before")
    @classmethod
    def _listen_for_tcp_only(cls, raw: object) -> object:
        """Accept no HTTP by default where there are TCP ports and no address for requests."""
        if isinstance(raw, dict) and raw.get("tcp") and "to" not in raw:
            return {"listen": (), **raw}
        return raw

    @field_validator("listen", "to", "tcp", "mirror", mode="before")
    @classmethod
    def _wrap_in_list(cls, value: object) -> object:
        return [value] if isinstance(value, str | dict) else value

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if not self.to and (self.listen or not self.tcp):
            raise ValueError(
                "no address to send requests to; use --to HOST:PORT, once or several times"
            )
        if self.to and not self.listen:
            raise ValueError("listen is empty; expected an address, e.g. 127.0.0.1:8080")
        if self.mirror and not self.to:
            raise ValueError("mirror copies requests that are sent to the addresses of to; add to")
        return self

    @model_validator(mode="after")
    def _check_listeners_used(self) -> Self:
        for name in find_unused_listeners(self, self.addresses):
            raise ValueError(
                f"listeners: {name} is not an address in listen: {', '.join(self.addresses)}"
            )
        return self

    @model_validator(mode="after")
    def _check_tcp(self) -> Self:
        self.tcp_services()
        taken: set[tuple[str, str]] = set()
        for port in self.tcp:
            if port.listen in self.listen or (port.listen, port.sni) in taken:
                raise ValueError(
                    f"{port.listen} is given twice; expected different addresses, or different sni"
                )
            taken.add((port.listen, port.sni))
            given = self.listeners.get(port.listen)
            if given is not None and (given.tls or given.redirect or given.paths):
                raise ValueError(
                    f"listeners: {port.listen} passes TCP connections on as they are; remove tls, "
                    "redirect and paths"
                )
        return self

    @model_validator(mode="after")
    def _check_schemes(self) -> Self:
        for name, group in (("to", self.to), ("mirror", self.mirror)):
            if len({each.encrypted for each in group}) > 1:
                raise ValueError(f"{name} mixes https:// with other addresses; expected one kind")
        return self

    @model_validator(mode="after")
    def _check_routes(self) -> Self:
        if any(route.forward_auth for route in self.mesh.routes):
            raise ValueError(
                "forward_auth asks a service of a mesh, and a standalone proxy has no other service"
            )
        return self

    @model_validator(mode="after")
    def _check_protocol(self) -> Self:
        encrypted = self.upstream_tls is not None
        if self.mesh.protocol == "h2" and not encrypted:
            raise ValueError("protocol h2 is HTTP/2 over TLS; expected https:// in to, or h2c")
        if self.mesh.protocol == "h2c" and encrypted:
            raise ValueError("protocol h2c is HTTP/2 in the clear; expected h2 with https://")
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses to accept connections on."""
        return (*self.listen, *dict.fromkeys(port.listen for port in self.tcp))

    def tcp_services(self) -> dict[str, TcpPort]:
        """Return the TCP ports by the name of their service."""
        return name_ports(self.tcp)

    @property
    def upstream_tls(self) -> UpstreamTlsSpec | None:
        """How connections to the addresses of `to` are encrypted; None for none."""
        encrypted = bool(self.to) and self.to[0].encrypted
        return self.mesh.upstream.tls or (UpstreamTlsSpec() if encrypted else None)

    @property
    def mirror_tls(self) -> UpstreamTlsSpec | None:
        """The same for the addresses of `mirror`: with the settings of `upstream.tls`."""
        if not self.mirror or not self.mirror[0].encrypted:
            return None
        return self.mesh.upstream.tls or UpstreamTlsSpec()

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            address.parse(each)
        return value


def read_settings(file: str, flags: RawSettings) -> StandaloneSettings:
    """Read the settings in `file` (none if empty), overridden by `flags`. Raises SpecError."""
    node = _read_document(file) if file else SourceNode({}, Location("command line"))
    raw = node.to_plain() if file else {}
    assert isinstance(raw, dict)
    try:
        settings = StandaloneSettings.model_validate(_group(raw, flags, node))
        _check_automatic(settings, node)
        return _read_tls_files(settings, file, node)
    except ValidationError as error:
        found = error.errors()
        # pydantic also reports a list as too short if its items are invalid.
        with_invalid_items = {each["loc"][:1] for each in found if len(each["loc"]) > 1}
        errors = [
            e for e in found if e["type"] != "too_short" or e["loc"] not in with_invalid_items
        ]
        raise SpecError([_make_problem(each, node) for each in errors]) from error


def _check_automatic(settings: StandaloneSettings, node: SourceNode) -> None:
    """Raise SpecError if a route wants a certificate that no listener's settings can order."""
    if listeners.list_acme(settings, settings.listen):
        return
    for number, route in enumerate(settings.mesh.routes):
        if route.tls == "auto":
            text = "auto needs a listener that orders certificates; set tls: {acme: ...}"
            location = _find_location(node, ("routes", number, "tls"))
            raise SpecError([Problem(location, "", f"routes.{number}.tls", text)])


def _read_tls_files(
    settings: StandaloneSettings, file: str, node: SourceNode
) -> StandaloneSettings:
    """Resolve the files of `upstream.tls` against the folder of the settings, and check them.
    Raises SpecError."""
    mesh = upstream_files.resolve_files(settings.mesh, Path(file).parent.absolute())
    problem = upstream_files.find_problem(mesh.upstream.tls) if mesh.upstream.tls else None
    if problem is not None:
        path = ("upstream", "tls")
        raise SpecError([Problem(_find_location(node, path), "", ".".join(path), problem)])
    try:
        mesh = route_files.read_files(mesh, Path(file).parent.absolute())
    except route_files.RouteFile as error:
        route_path = ("routes", error.route, error.key)
        location = _find_location(node, route_path)
        raise SpecError(
            [Problem(location, "", ".".join(map(str, route_path)), str(error))]
        ) from error
    settings = listeners.resolve_files(settings, Path(file).parent.absolute())
    return settings.model_copy(update={"mesh": mesh})


def _read_document(file: str) -> SourceNode:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not valid UTF-8"
        raise SpecError([Problem(Location(file), "", "", f"cannot be read: {reason}")]) from error
    node = parse_yaml(text, file, "a mapping of settings")
    if node.mapping is None:
        raise SpecError([Problem(node.location, "", "", "expected a mapping of settings")])
    return node


def _expand_short_forms(raw: RawSettings) -> RawSettings:
    """Expand the short forms of sections that flags can add keys to."""
    expand = {
        "health": shorthand.expand_health,
        "balance": shorthand.expand_balance,
        "drain": shorthand.expand_drain,
        "access_log": expand_access_log,
        "otlp": expand_otlp,
    }
    return {key: expand[key](value) if key in expand else value for key, value in raw.items()}


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> RawSettings:
    """Merge `above` over `below`, recursively."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, dict) and isinstance(value, dict)
        merged[key] = _overlay(under or {}, value) if both else value
    return merged


def _group(raw: RawSettings, flags: RawSettings, node: SourceNode) -> RawSettings:
    """Merge file and flags, and separate the policies, which may be at the top level of the file or
    under `x-mesh`."""
    nested = raw.get("x-mesh") or {}
    if not isinstance(nested, dict):
        raise SpecError(
            [Problem(_find_location(node, ("x-mesh",)), "", "x-mesh", "expected a mapping")]
        )
    together = {**nested, **{key: value for key, value in raw.items() if key != "x-mesh"}}
    merged = _overlay(_expand_short_forms(together), flags)
    own = {key: merged[key] for key in merged.keys() & StandaloneSettings.model_fields.keys()}
    policies = {key: value for key, value in merged.items() if key not in own}
    diagnostics = Diagnostics()
    for key in policies:
        if key in _NOT_APPLICABLE or key not in Mesh.model_fields:
            diagnostics.problems.append(_describe_unknown(key, node))
    for key in own.keys() & {"mesh", "probes"}:
        diagnostics.problems.append(_describe_unknown(key, node))
    diagnostics.raise_if_any()
    return {**own, "mesh": policies, "probes": "health" in policies}


def _describe_unknown(key: str, node: SourceNode) -> Problem:
    if key in _NOT_APPLICABLE:
        text = "does not apply to a standalone proxy, which starts no replicas"
    else:
        known = {*StandaloneSettings.model_fields, *Mesh.model_fields} - {
            *_NOT_APPLICABLE,
            "mesh",
            "probes",
        }
        text = f"unknown setting{suggest(key, known)}"
    return Problem(_find_location(node, (key,)), "", key, text)


def _make_problem(error: Mapping[str, Any], node: SourceNode) -> Problem:
    path = tuple(part for part in error["loc"] if part != "mesh")
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] != "value_error":
        text = f"{error['input']!r} is not valid; expected {describe_expected(text)}"
    if error["type"] == "extra_forbidden":
        text = "unknown setting"
    return Problem(_find_location(node, path), "", ".".join(map(str, path)), text)


def _find_location(node: SourceNode, path: tuple[str | int, ...]) -> Location:
    """Return the location of the deepest part of `path` that exists in the file."""
    for root in (node, (node.mapping or {}).get("x-mesh", node)):
        found = root
        for part in path:
            child: SourceNode | None = None
            if found.mapping is not None:
                child = found.mapping.get(str(part))
            elif found.sequence is not None and isinstance(part, int):
                child = found.sequence[part] if part < len(found.sequence) else None
            if child is None:
                break
            found = child
        if found is not root:
            return found.location
    return node.location
