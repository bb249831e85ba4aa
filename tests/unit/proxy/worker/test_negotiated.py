"""The protocol of a connection after its handshake."""

import asyncio
from pathlib import Path

from proxy.tls.contexts import ServerContexts
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls, Route, Target
from proxy.worker import negotiated
from tests.support.certificate_authority import Authority
from tests.support.proxy_scene import OK, Client, Scene, answers, get, on_uvloop, service


@on_uvloop
async def test_http_1_is_served_with_its_scheme(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("shop.test")
    tls = ListenerTls((CertificateFiles(issued.cert, issued.key),))
    listener = Listener("127.0.0.1:0", tls=tls)
    contexts = ServerContexts(listener, negotiated.offered_protocols(listener))
    scene = Scene({})
    loop = asyncio.get_running_loop()

    def factory() -> asyncio.Protocol:
        return negotiated.create_handshake(scene.plane, contexts, listener)

    server = await loop.create_server(factory, "127.0.0.1", 0)
    scene.server, scene.port = server, server.sockets[0].getsockname()[1]
    try:
        origin = await scene.origin(answers(OK))
        scene.install(service(origin), routes=(Route(id="all", targets=(Target("shop"),)),))
        trusting = authority.client_context()
        trusting.set_alpn_protocols(["http/1.1"])
        streams = await asyncio.open_connection(
            "127.0.0.1", scene.port, ssl=trusting, server_hostname="shop.test"
        )
        client = Client(*streams)
        scene.clients.append(client)
        for _ in range(3):
            await client.send(get("/", "X-Forwarded-Proto: http", "X-Forwarded-Client-Cert: evil"))
            assert (await client.response())[0] == 200
        seen = origin.visits[0].raw
        assert seen.count(b"X-Forwarded-Proto: https\r\n") == 3
        assert seen.count(b"proto=https\r\n") == 3
        assert b"evil" not in seen
        # The client ends both sides; nothing is left of it.
        await client.send(get("/", "Connection: close"))
        assert (await client.response())[0] == 200
        assert await client.rest() == b""
        assert not scene.plane.active()
        assert scene.plane.handshakes.take() == {"complete": 1}
        assert not scene.plane.handshakes.pending
    finally:
        await scene.close()
