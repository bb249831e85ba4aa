"""Frozen values of this package: what is wanted, what is held, and what was tried. Pure.

`decide` decides from them, `store` keeps some of them, and `manager` connects the two. Times are
Unix seconds.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from meshd.model.base import Value
from meshd.spec.model.acme import ChallengeType
from proxy.wire.snapshot import AcmeChallenge, CertificateFiles


@dataclass(frozen=True, slots=True)
class AuthorityAccess:
    """How to reach a certificate authority, and as whom; see `AcmeSettings`.

    - `kid`, `mac_key`: the external account; empty for none.
    """

    directory: str
    email: str = ""
    ca: str = ""
    kid: str = ""
    mac_key: str = ""

    @property
    def id(self) -> str:
        """Names the account's folder: the authority's host, and a hash of directory and external
        account."""
        digest = hashlib.sha256(f"{self.directory}\n{self.kid}".encode()).hexdigest()
        return f"{urlsplit(self.directory).hostname}-{digest[:8]}"


@dataclass(frozen=True, slots=True)
class WantedCertificate:
    """A host name that needs a certificate, the authority that it comes from, and the types of
    validation that may be used, in order of preference."""

    name: str
    authority: AuthorityAccess
    challenges: tuple[ChallengeType, ...]


@dataclass(frozen=True, slots=True)
class HeldCertificate:
    """A certificate that is stored.

    - `names`: the host names in it.
    - `path`: the PEM file of its key and chain.
    - `renewal_id`: its name in requests for renewal information (RFC 9773, 4.1); empty if it has
      none.
    - `serial`: its serial number, which the authority chooses at random.
    - `version`: hash of the file's content.
    """

    names: tuple[str, ...]
    not_before: float
    not_after: float
    path: str
    version: str
    serial: int = 0
    renewal_id: str = ""


class RenewalWindow(Value, frozen=True):
    """When the authority suggests to renew a certificate (RFC 9773).

    - `renewal_id`: the certificate that it is for.
    - `start`, `end`: the window; both 0 if the authority suggests none.
    - `check_at`: when to ask again.
    - `explanation`: URL of a page with the reason; usually empty.
    """

    renewal_id: str
    start: float = 0.0
    end: float = 0.0
    check_at: float = 0.0
    explanation: str = ""


class OrderRecord(Value, frozen=True):
    """What is remembered about the orders for one name.

    - `failures`, `failed_at`, `error`: failed attempts since the last success, and the last one.
    - `retry_at`: no attempt before this time.
    - `window`: the authority's last suggestion.
    - `warned`: the highest `ExpiryWarning` that was recorded for the current certificate.
    - `causes`: how many of the failures had each `FailureCause`. Empty in records of earlier
      versions, as if those had been of other causes.
    """

    failures: int = 0
    failed_at: float = 0.0
    error: str = ""
    retry_at: float = 0.0
    window: RenewalWindow | None = None
    warned: int = 0
    causes: dict[str, int] = msgspec.field(default_factory=dict)


class Account(Value, frozen=True):
    """An account at an authority: its private key (PEM), URL, and contact."""

    key: str
    url: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True)
class ServedCertificates:
    """What the proxy serves: certificates, and open challenges."""

    certificates: tuple[CertificateFiles, ...] = ()
    challenges: tuple[AcmeChallenge, ...] = ()


class FailureCause(StrEnum):
    """Why an attempt failed; decides how long to wait before the next one."""

    VALIDATION = "validation"
    """The authority could not validate the name."""
    RATE_LIMITED = "rate-limited"
    REFUSED = "refused"
    """The authority does not accept the account or the order."""
    UNREACHABLE = "unreachable"
    """The authority does not answer, or answers with an internal error."""
    ACCOUNT_LOST = "account-lost"
    """The authority does not know the account any more; the next attempt makes one."""
    PROXY = "proxy"
    """The proxy did not get the answer to the challenge in time."""


class OrderFailed(Exception):
    """An attempt failed. The text is the reason, for users. `retry_after`: seconds that the
    authority asks to wait; 0 if it does not say."""

    def __init__(self, cause: FailureCause, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.cause = cause
        self.retry_after = retry_after


class ChallengeAnswer(msgspec.Struct, frozen=True):
    """What the proxy must present so that the authority validates a name: `key_authorization` at
    the path of `token`, or in a certificate."""

    type: ChallengeType
    name: str
    token: str
    key_authorization: str
