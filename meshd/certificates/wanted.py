"""Which certificates are wanted, by the settings and the routes of all services.

Used by `meshd.daemon.wiring` and `meshd.standalone.helper`, which pass it to `manager`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from meshd.certificates import decide
from meshd.certificates.values import AuthorityAccess, WantedCertificate
from meshd.spec.model import Service
from meshd.spec.model.acme import AcmeSettings


class BadAcmeSettings(Exception):
    """A file that the settings name cannot be read; the text says which."""


class WantedCertificates:
    """The names that need a certificate now. `services` is called for the services whose routes
    count. Routes get theirs from the authority of the first settings. Raises BadAcmeSettings."""

    def __init__(
        self, settings: Sequence[AcmeSettings], services: Callable[[], Iterable[Service]]
    ) -> None:
        self._services = services
        found = [(each, access_of(each)) for each in settings]
        self._domains = [
            WantedCertificate(domain, access, each.challenges)
            for each, access in found
            for domain in each.domains
        ]
        self._default = (found[0][1], found[0][0].challenges) if found else None

    def list(self) -> tuple[WantedCertificate, ...]:
        """Return the wanted certificates, each name once."""
        hosts = decide.find_route_hosts(self._services())
        return decide.list_wanted(self._domains, hosts, self._default)


def access_of(settings: AcmeSettings) -> AuthorityAccess:
    """Return how to reach the authority of the settings. Raises BadAcmeSettings."""
    account = settings.external_account
    if settings.ca:
        _read(settings.ca, "acme.ca")
    key = ""
    if account is not None:
        key = account.key or _read(account.key_file, "acme.external_account.key_file").strip()
    return AuthorityAccess(
        settings.directory,
        settings.email,
        settings.ca,
        account.kid if account else "",
        key.rstrip("="),
    )


def _read(path: str, setting: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadAcmeSettings(f"{setting}: {path} cannot be read: {reason}") from error
