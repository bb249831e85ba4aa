"""A data plane behind a TLS listener, on a real loopback socket."""

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from proxy.tls.certificate import load_listener
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls
from proxy.worker.handover import Handover
from proxy.worker.tls_listeners import TlsListeners
from tests.support.certificate_authority import Authority, Issued
from tests.support.proxy_scene import Client, Scene


class TlsScene(Scene):
    """A scene whose listener has a certificate for `shop.test`."""

    def __init__(self, folder: Path, plane: dict[str, Any]) -> None:
        super().__init__(plane)
        self.authority = Authority(folder)
        self.issued = self.authority.issue("shop.test")
        self.tls = TlsListeners(self.plane)

    async def listen(self, **listener: Any) -> None:
        settings = listener.pop("tls", ListenerTls())
        if not settings.certificates:
            files = CertificateFiles(self.issued.cert, self.issued.key)
            settings = msgspec.structs.replace(settings, certificates=(files,))
        made = Listener(
            **{"address": "127.0.0.1:0", "tls": load_listener(settings, time.time()), **listener}
        )
        await self.hand_over(Handover(self.plane, self.attachments, tls=self.tls), made)

    async def secure(self, name: str = "shop.test", identity: Issued | None = None) -> Client:
        """Return a client whose handshake is complete."""
        context = self.authority.client_context(identity)
        streams = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name, limit=1 << 20
        )
        client = Client(*streams)
        self.clients.append(client)
        return client


@asynccontextmanager
async def tls_scene(folder: Path, plane: dict[str, Any] | None = None, **listener: Any):  # type: ignore[no-untyped-def]
    """A scene on a TLS listener; `plane` holds further arguments of its data plane."""
    made = TlsScene(folder, plane or {})
    await made.listen(**listener)
    try:
        yield made
    finally:
        await made.close()
