"""Settings of the whole proxy, not of one service: trusted proxies, access log, span export.

In a Compose file they are under `x-mesh` at the top level, and apply to the daemon that `meshd up`
starts with the file. `meshd proxy` has the same keys, see `meshd.standalone.settings`.
"""

import ipaddress
import re
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from meshd.spec.model import BackupHooks, Model, Percent, Quota
from meshd.spec.model.notify import NotifyTarget, wrap_targets
from meshd.spec.model.tls_settings import TlsSettings
from proxy.ipc import address


class MissingExtra(Exception):
    """A setting needs packages that are not installed; the text names them."""


def expand_access_log(value: object) -> object:
    """Expand a mode to a mapping; a boolean means `on` or `off`."""
    if isinstance(value, bool):
        value = "on" if value else "off"
    return {"mode": value} if isinstance(value, str) else value


class AccessLogSettings(Model):
    """The access log; see `proxy.ipc.config.LogConfig`.

    - `mode`: write a line for each request, for a sample of them, or for none
    - `format`: `json` or `combined`
    - `path`: the file
    - `sample`: the share of the requests that is written in the mode `sampled`, 0 to 1
    - `query`: whether query strings are written; a list names parameters whose values are not
    """

    mode: Literal["off", "sampled", "on"] = "off"
    format: Literal["json", "combined"] = "json"
    path: str = ""
    sample: Annotated[float, Field(ge=0, le=1)] = 0.01
    query: bool | tuple[str, ...] = True

    _short = model_validator(mode="before")(expand_access_log)


def expand_otlp(value: object) -> object:
    """Expand a URL to a mapping."""
    return {"endpoint": value} if isinstance(value, str) else value


class OtlpSettings(Model):
    """The export of spans by OTLP over HTTP.

    - `endpoint`: the URL to send spans to
    - `sample`: the share of the requests to record if the sender has made no sampling decision
    - `service_name`: the service name of the spans
    - `query`: whether spans have query strings; a list names parameters whose values are left out.
      Default: as in the access log
    """

    endpoint: str
    sample: Percent = 0.01
    service_name: Annotated[str, Field(min_length=1)] = "meshd"
    query: bool | tuple[str, ...] | None = None

    _short = model_validator(mode="before")(expand_otlp)

    @field_validator("endpoint")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is not a valid URL; expected e.g. http://127.0.0.1:4318")
        return value if parts.path.strip("/") else value.rstrip("/") + "/v1/traces"


def check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return the networks unchanged; `unix:` and `unix:PATH` are valid too. Raises ValueError with
    the first invalid one."""
    for each in value:
        if each.startswith("unix:"):
            continue
        try:
            ipaddress.ip_network(each, strict=False)
        except ValueError as error:
            raise ValueError(
                f"{each!r} is not a valid network; expected e.g. 10.0.0.0/8, or an address"
            ) from error
    return value


class ProxyProtocolSettings(Model):
    """The PROXY protocol at an address that the proxy accepts clients at.

    - `from`: networks in CIDR notation, or addresses, of the load balancers, whose connections must
      all begin with a PROXY header; `unix:PATH` or `unix:` for clients of Unix sockets
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    networks: Annotated[tuple[str, ...], Field(min_length=1, alias="from")]

    @field_validator("networks", mode="before")
    @classmethod
    def _wrap_network(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    _check_networks = field_validator("networks")(check_networks)


class ListenerSettings(Model):
    """Settings of one address that the proxy accepts clients at.

    - `paths`: the path policy of routes without one: `strict` or `as-is`; see `RouteSpec`
    - `mode`: the permission bits of a Unix socket's file, in octal: `"0660"`
    - `proxy_protocol`: read the PROXY header of load balancers in front. Default: none
    - `tls`: TLS of this address; `false`: none. Default: that of the proxy as a whole
    - `redirect`: `https` or `https:PORT` redirects all requests to the same URL with https
    """

    paths: Literal["strict", "as-is"] | None = None
    mode: str = ""
    proxy_protocol: ProxyProtocolSettings | None = None
    tls: TlsSettings | Literal[False] | None = None
    redirect: Annotated[str, Field(pattern=r"^(https(:[1-9][0-9]{0,4})?)?$")] = ""

    @property
    def redirect_port(self) -> int:
        """The port of `redirect`; 0 if it names none."""
        return int(self.redirect.partition(":")[2] or 0)

    @model_validator(mode="after")
    def _check_redirect(self) -> Self:
        if self.redirect and self.tls:
            raise ValueError("redirect: https is for an address without TLS; remove one of them")
        return self

    @field_validator("mode", mode="before")
    @classmethod
    def _check_mode(cls, value: object) -> object:
        # YAML 1.1 reads 0660 as the number 432, YAML 1.2 as 660: only text has one reading.
        if not isinstance(value, str) or (value and not re.fullmatch("0?[0-7]{3}", value)):
            raise ValueError(
                f'{value!r} is not a valid mode; expected octal digits in quotes, e.g. "0660"'
            )
        return value


class ProxySettings(Model):
    """The settings of the whole proxy.

    - `listeners`: settings of addresses that clients connect to, by address
    - `tls`: TLS of all TCP addresses that clients connect to and that do not redirect
    - `trusted_proxies`: networks in CIDR notation, or addresses, of proxies whose `Forwarded` and
      `X-Forwarded-*` fields are trusted; `unix:PATH` or `unix:` for clients of Unix sockets
    - `via`: whether requests to endpoints have a `Via` field
    - `access_log`: the access log
    - `otlp`: the export of spans. Default: none
    """

    listeners: dict[str, ListenerSettings] = {}
    tls: TlsSettings | None = None
    trusted_proxies: tuple[str, ...] = ()
    via: bool = False
    access_log: AccessLogSettings = AccessLogSettings()
    otlp: OtlpSettings | None = None

    @field_validator("listeners")
    @classmethod
    def _check_listeners(cls, value: dict[str, ListenerSettings]) -> dict[str, ListenerSettings]:
        for name, listener in value.items():
            if listener.mode and not address.parse(name).path:
                raise ValueError(f"{name} has no mode; only Unix sockets (unix:PATH) have one")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _wrap_network(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    _check_networks = field_validator("trusted_proxies")(check_networks)


TRACE_ID: Final = "{trace_id}"
"""Where the id of a trace is put in `trace_url`."""


class TopLevelSettings(ProxySettings):
    """`x-mesh` at the top level of a Compose file: the settings of the proxy and of the project.

    - `quota`: upper bounds of the project. Default: none
    - `backups`: commands around the backup of a volume, by the name of the volume
    - `notify`: webhooks that get notifications. Default: none
    - `trace_url`: address of a trace at a viewer such as Jaeger, with `{trace_id}`; the web page
      links to it. Default: none
    """

    quota: Quota | None = None
    backups: dict[str, BackupHooks] = {}
    notify: tuple[NotifyTarget, ...] = ()
    trace_url: str = ""

    _targets = field_validator("notify", mode="before")(wrap_targets)

    @field_validator("trace_url")
    @classmethod
    def _check_trace_url(cls, value: str) -> str:
        parts = urlsplit(value)
        # Browsers run the addresses of some other schemes as code.
        known = parts.scheme in ("http", "https") and parts.hostname
        if value and (not known or TRACE_ID not in value):
            raise ValueError(
                f"{value!r} is not a valid URL of a trace; expected e.g. "
                "http://127.0.0.1:16686/trace/{trace_id}"
            )
        return value

    @property
    def proxy_settings(self) -> ProxySettings:
        """The settings without those of the project."""
        return ProxySettings.model_construct(
            **{name: getattr(self, name) for name in ProxySettings.model_fields}
        )


def find_unused_listeners(proxy_settings: ProxySettings, listen: Iterable[str]) -> list[str]:
    """Return the addresses in `listeners` that the proxy does not accept clients at."""
    return sorted(proxy_settings.listeners.keys() - set(listen))


def require_otlp(proxy_settings: ProxySettings) -> None:
    """Check that the packages for exporting spans are installed if they are needed.

    Raises MissingExtra.
    """
    if proxy_settings.otlp is None:
        return
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec(
            "opentelemetry.sdk.trace"
        )
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise MissingExtra(
            "otlp: exporting spans requires the OpenTelemetry packages; run pip install "
            "'meshd[otlp]'"
        )
