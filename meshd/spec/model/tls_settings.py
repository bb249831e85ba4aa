"""TLS of the addresses that clients connect to.

Part of `meshd.spec.model.proxy_settings`. `meshd.standalone.listeners` turns it into
`proxy.wire.snapshot.ListenerTls` and checks the files.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from meshd.spec import units
from meshd.spec.model.acme import AcmeSettings
from meshd.spec.model.base import Count, Duration, Model

HSTS_SECONDS: Final = 63072000.0
"""Two years: what Mozilla's recommendation uses."""
LONGEST_HANDSHAKE: Final = 300.0
"""Seconds; a handshake holds memory and counts for the limit of its address."""


class CertificateSettings(Model):
    """A certificate.

    - `cert`: PEM file of the certificate, followed by its chain
    - `key`: PEM file of the private key. Default: it is in `cert`
    - `names`: host names that it is served for, exact or `*.suffix`. Default: those in it
    """

    cert: Annotated[str, Field(min_length=1)]
    key: str = ""
    names: tuple[str, ...] = ()


class HstsSettings(Model):
    """The Strict-Transport-Security field of responses (RFC 6797).

    - `max_age`: how long browsers use TLS only
    - `subdomains`: whether this holds for all subdomains too
    - `preload`: whether browsers may have it built in
    """

    max_age: Duration = HSTS_SECONDS
    subdomains: bool = False
    preload: bool = False

    @property
    def value(self) -> str:
        """The value of the field."""
        flags = "; includeSubDomains" * self.subdomains + "; preload" * self.preload
        return f"max-age={int(self.max_age)}{flags}"


class TlsSettings(Model):
    """TLS of an address that clients connect to.

    - `cert`, `key`: PEM files of the certificate with its chain, and of its private key
    - `certificates`: more certificates; the client's server name chooses: exact names first, then
      wildcards, else the first certificate
    - `acme`: certificates from a certificate authority, besides those in files
    - `client_ca`: PEM file of the authorities that client certificates must come from
    - `client`: whether clients must have a certificate (`required`) or may have one (`optional`).
      Default: `required` if `client_ca` is set
    - `min_version`: the oldest version of TLS
    - `http2`: whether clients may choose HTTP/2
    - `hsts`: tell browsers to use TLS only: `true`, a time, or a mapping. Default: no
    - `handshake_timeout`: time for a handshake
    - `handshakes_per_address`: unfinished handshakes that one client address may have at a worker;
      0 means no limit
    """

    cert: str = ""
    key: str = ""
    certificates: tuple[CertificateSettings, ...] = ()
    acme: AcmeSettings | None = None
    client_ca: str = ""
    client: Literal["optional", "required"] | None = None
    min_version: Literal["1.2", "1.3"] = "1.2"
    http2: bool = True
    hsts: HstsSettings | None = None
    handshake_timeout: Annotated[Duration, Field(gt=0, le=LONGEST_HANDSHAKE)] = 10.0
    handshakes_per_address: Count = 64

    @field_validator("hsts", mode="before")
    @classmethod
    def _expand_hsts(cls, value: object) -> object:
        if isinstance(value, bool):
            return {} if value else None
        if isinstance(value, str | int | float):
            return {"max_age": units.parse_duration(value)}
        return value

    @field_validator("min_version", mode="before")
    @classmethod
    def _read_version(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value

    @field_validator("certificates", mode="before")
    @classmethod
    def _wrap_in_list(cls, value: object) -> object:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.key and not self.cert:
            raise ValueError("key is set without cert; expected the certificate of the key")
        if not self.cert and not self.certificates and self.acme is None:
            raise ValueError("no certificate; expected cert and key, certificates, or acme")
        if self.client and not self.client_ca:
            raise ValueError(f"client: {self.client} needs client_ca, a file of authorities")
        return self

    @property
    def all_certificates(self) -> tuple[CertificateSettings, ...]:
        """All certificates, the default one first."""
        first = (CertificateSettings(cert=self.cert, key=self.key),) if self.cert else ()
        return first + self.certificates
