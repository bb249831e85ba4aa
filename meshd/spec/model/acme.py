"""Settings of automatic certificates: `tls: {acme: ...}` of a listener.

Part of the settings of a listener with TLS; `meshd.certificates` orders the certificates.
"""

import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Model

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
"""Directory of the certificate authority Let's Encrypt."""
ACME_VARIABLE: Final = "MESHD_ACME"
"""Environment variable of the control process: the settings, as JSON. They hold a key, which the
arguments of a process would show to all users."""
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+(?=[a-z0-9-]*[a-z])[a-z0-9-]+")
"""A name of at least two labels; the last one has a letter, so that it is not an address."""
ChallengeType = Literal["http-01", "tls-alpn-01"]


def check_domain(value: str) -> str:
    """Return a host name in lower case. Raises ValueError if a certificate authority cannot
    validate it by HTTP or TLS."""
    lower = value.lower()
    if lower.startswith("*."):
        raise ValueError(
            f"{value!r} is a wildcard, which needs validation by DNS; expected each host by name"
        )
    if not _DOMAIN.fullmatch(lower):
        raise ValueError(f"{value!r} is not a valid domain; expected e.g. www.example.com")
    return lower


class ExternalAccount(Model):
    """An external account at the certificate authority (RFC 8555, 7.3.4).

    - `kid`: the identifier of its key
    - `key`: the MAC key in base64url, as the authority shows it
    - `key_file`: a file that contains the key, in place of `key`
    """

    kid: Annotated[str, Field(min_length=1)]
    key: str = ""
    key_file: str = ""

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if bool(self.key) == bool(self.key_file):
            raise ValueError("expected either key or key_file")
        if self.key and not re.fullmatch(r"[A-Za-z0-9_-]+=*", self.key):
            raise ValueError("key is not valid; expected base64url text")
        return self


class AcmeSettings(Model):
    """Certificates from an authority that speaks ACME (RFC 8555). With these settings its terms of
    service are accepted.

    - `email`: contact of the account
    - `domains`: host names to get certificates for, one each. Routes with `tls: auto` add their
      hosts
    - `directory`: URL of the authority's directory
    - `ca`: PEM file with the authorities that the directory's own certificate is verified by;
      default: those of the system
    - `external_account`: external account binding
    - `challenges`: types of validation to use, in order of preference
    """

    email: str = ""
    domains: tuple[str, ...] = ()
    directory: str = LETS_ENCRYPT
    ca: str = ""
    external_account: ExternalAccount | None = None
    challenges: Annotated[tuple[ChallengeType, ...], Field(min_length=1)] = (
        "http-01",
        "tls-alpn-01",
    )

    @field_validator("domains", "challenges", mode="before")
    @classmethod
    def _wrap_in_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("domains")
    @classmethod
    def _check_domains(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(check_domain, value)))

    @field_validator("email")
    @classmethod
    def _check_email(cls, value: str) -> str:
        if value and not re.fullmatch(r"[^\s@,]+@[^\s@,]+", value):
            raise ValueError(f"{value!r} is not a valid e-mail address")
        return value

    @field_validator("directory")
    @classmethod
    def _check_directory(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(f"{value!r} is not a valid URL; expected e.g. {LETS_ENCRYPT}")
        return value
