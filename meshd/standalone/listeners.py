"""The settings of addresses that clients connect to, as the supervisor gets them.

`meshd.standalone.build` and `meshd.cli.daemon_process` build them; `meshd.cli` checks the
certificates before anything is started.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from meshd.certificates.wanted import BadAcmeSettings, access_of
from meshd.spec.model.acme import AcmeSettings
from meshd.spec.model.proxy_settings import ListenerSettings, ProxySettings
from meshd.spec.model.tls_settings import TlsSettings
from proxy.ipc import address
from proxy.tls.certificate import UnusableCertificate, load_listener
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls

S = TypeVar("S", bound=ProxySettings)
HTTPS_PORT: Final = 443
"""The port of https URLs without one."""


def build_listeners(settings: ProxySettings, listen: Sequence[str]) -> tuple[Listener, ...]:
    """Return the settings of the addresses in `listen`; only those that have any."""
    plain = ListenerSettings()
    found = [(name, settings.listeners.get(name, plain)) for name in listen]
    built = (_build_listener(name, each, settings, listen) for name, each in found)
    return tuple(each for each in built if each != Listener(each.address))


def _build_listener(
    name: str, own: ListenerSettings, settings: ProxySettings, listen: Sequence[str]
) -> Listener:
    tls = find_tls(name, own, settings)
    return Listener(
        name,
        paths=own.paths or "",
        mode=int(own.mode, 8) if own.mode else None,
        proxy_protocol=own.proxy_protocol.networks if own.proxy_protocol else (),
        tls=None if tls is None else build_tls(tls),
        https_port=own.redirect_port or _https_port(settings, listen) if own.redirect else 0,
    )


def find_tls(name: str, own: ListenerSettings, settings: ProxySettings) -> TlsSettings | None:
    """Return the TLS settings of an address; None for clear text. Those of the proxy as a whole
    apply to TCP addresses without own ones that do not redirect."""
    if own.tls is False or own.redirect:
        return None
    if own.tls is not None:
        return own.tls
    return None if address.parse(name).path else settings.tls


def _https_port(settings: ProxySettings, listen: Sequence[str]) -> int:
    """The port that a redirect to https leads to: that of the first address with TLS."""
    for name in listen:
        own = settings.listeners.get(name, ListenerSettings())
        parsed = address.parse(name)
        if find_tls(name, own, settings) is not None and parsed.port:
            return parsed.port
    return HTTPS_PORT


def build_tls(tls: TlsSettings) -> ListenerTls:
    """Return the settings as workers get them."""
    return ListenerTls(
        certificates=tuple(
            CertificateFiles(each.cert, each.key, tuple(name.lower() for name in each.names))
            for each in tls.all_certificates
        ),
        client_ca=tls.client_ca,
        client=tls.client or ("required" if tls.client_ca else "none"),
        minimum=tls.min_version,
        http2=tls.http2,
        hsts=tls.hsts.value if tls.hsts else "",
        handshake_seconds=tls.handshake_timeout,
        handshakes_per_address=tls.handshakes_per_address,
    )


def list_acme(settings: ProxySettings, listen: Sequence[str]) -> tuple[AcmeSettings, ...]:
    """Return the settings of automatic certificates of the addresses in `listen`, each once.
    Without an address in clear text the default is to be validated by TLS first."""
    plain = ListenerSettings()
    tls = [find_tls(name, settings.listeners.get(name, plain), settings) for name in listen]
    found = dict.fromkeys(each.acme for each in tls if each is not None and each.acme)
    if None in tls:
        return tuple(found)
    return tuple(
        each
        if "challenges" in each.model_fields_set
        else each.model_copy(update={"challenges": each.challenges[::-1]})
        for each in found
    )


def resolve_files(settings: S, folder: Path) -> S:
    """Return the settings with absolute paths of certificate files; relative ones start at
    `folder`."""
    listeners = {
        name: each.model_copy(update={"tls": _resolve(each.tls, folder)}) if each.tls else each
        for name, each in settings.listeners.items()
    }
    tls = _resolve(settings.tls, folder) if settings.tls else None
    return settings.model_copy(update={"listeners": listeners, "tls": tls})


def _resolve(tls: TlsSettings, folder: Path) -> TlsSettings:
    def absolute(path: str) -> str:
        return str(folder / Path(path).expanduser()) if path else ""

    return tls.model_copy(
        update={
            "cert": absolute(tls.cert),
            "key": absolute(tls.key),
            "client_ca": absolute(tls.client_ca),
            "acme": _resolve_acme(tls.acme, absolute) if tls.acme else None,
            "certificates": tuple(
                each.model_copy(update={"cert": absolute(each.cert), "key": absolute(each.key)})
                for each in tls.certificates
            ),
        }
    )


def _resolve_acme(acme: AcmeSettings, absolute: Callable[[str], str]) -> AcmeSettings:
    account = acme.external_account
    if account is not None:
        account = account.model_copy(update={"key_file": absolute(account.key_file)})
    return acme.model_copy(update={"ca": absolute(acme.ca), "external_account": account})


def find_problem(settings: ProxySettings, listen: Sequence[str]) -> str | None:
    """Return what is wrong with the files of certificates, with automatic ones, and with redirects
    at the addresses in `listen`; None if nothing is."""
    for each in list_acme(settings, listen):
        try:
            access_of(each)
        except BadAcmeSettings as error:
            return f"tls: {error}"
    listeners = build_listeners(settings, listen)
    for listener in listeners:
        if listener.tls is not None:
            try:
                load_listener(listener.tls, time.time())
            except UnusableCertificate as error:
                return f"{listener.address}: tls: {error}"
    if any(each.tls is not None for each in listeners):
        return None
    for name in listen:
        own = settings.listeners.get(name)
        if own is not None and own.redirect and not own.redirect_port:
            return (
                f"{name}: redirect: https has no target, because no address has tls; if another "
                f"server has it, name its port: redirect: https:{HTTPS_PORT}"
            )
    return None
