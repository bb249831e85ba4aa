"""What is set for the proxy as a whole, not for a service: whom it believes, and what it logs.

In a Compose file it stands under `x-mesh` at the top, for the daemon that `meshd up` starts with
the file; `meshd proxy` has the same keys.
"""

import ipaddress
from importlib.util import find_spec
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from meshd.spec.model import Model, Percent, Quota


class MissingExtra(Exception):
    """Something is asked for that further packages are needed for; the text names them."""


def expand_access_log(value: object) -> object:
    """Short for an access log of that mode. YAML's `on` and `off` may come as truth values."""
    if isinstance(value, bool):
        value = "on" if value else "off"
    return {"mode": value} if isinstance(value, str) else value


class AccessLogSettings(Model):
    """See `proxy.ipc.config.LogConfig`."""

    mode: Literal["off", "sampled", "on"] = "off"
    format: Literal["json", "combined"] = "json"
    path: str = ""
    sample: Annotated[float, Field(ge=0, le=1)] = 0.01

    _short = model_validator(mode="before")(expand_access_log)


def expand_otlp(value: object) -> object:
    """Short for an export of spans to there."""
    return {"endpoint": value} if isinstance(value, str) else value


class OtlpSettings(Model):
    """Where spans are sent by OTLP over HTTP, what share of the requests is recorded where whoever
    sent them has not decided, and what the spans are said to be of."""

    endpoint: str
    sample: Percent = 0.01
    service_name: Annotated[str, Field(min_length=1)] = "meshd"

    _short = model_validator(mode="before")(expand_otlp)

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is no URL; expected one like http://127.0.0.1:4318")
        return value if parts.path.strip("/") else value.rstrip("/") + "/v1/traces"


def check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """The networks as they came. Raises ValueError naming one that is none."""
    for each in value:
        try:
            ipaddress.ip_network(each, strict=False)
        except ValueError as error:
            raise ValueError(
                f"{each!r} is no network; expected one like 10.0.0.0/8, or an address"
            ) from error
    return value


class ProxySettings(Model):
    """The settings. `trusted_proxies` are networks in CIDR notation, or addresses."""

    trusted_proxies: tuple[str, ...] = ()
    access_log: AccessLogSettings = AccessLogSettings()
    otlp: OtlpSettings | None = None

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    _check_networks = field_validator("trusted_proxies")(check_networks)


class TopLevelSettings(ProxySettings):
    """`x-mesh` at the top of a Compose file: the settings, and what the project may have."""

    quota: Quota | None = None

    @property
    def proxy_settings(self) -> ProxySettings:
        """The settings alone."""
        return ProxySettings.model_construct(
            **{name: getattr(self, name) for name in ProxySettings.model_fields}
        )


def require_otlp(proxy_settings: ProxySettings) -> None:
    """Raises MissingExtra where spans are wanted and what sends them is not installed."""
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
            "otlp: sending spans needs OpenTelemetry's packages; pip install 'meshd[otlp]'"
        )
