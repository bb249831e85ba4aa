"""`x-mesh.upstream`: how the proxy connects to the replicas of a service.

Part of `meshd.spec.model.mesh`. `meshd.publish.compile` turns it into `proxy.wire.snapshot`, and
`meshd.spec.reader.upstream_files` checks the files that it names.
"""

from typing import Literal, Self

from pydantic import field_validator, model_validator

from meshd.spec.model.base import Model
from meshd.spec.reader import shorthand


class UpstreamTlsSpec(Model):
    """TLS on connections to replicas; see `proxy.wire.snapshot.UpstreamTls`.

    - `ca`: a file with the certificates of the CAs to trust. Default: those of the system
    - `server_name`: the name that the certificate must have. Default: the name of the service; for
      `meshd proxy` the host of the address
    - `cert`, `key`: files with the proxy's own certificate and its key, for servers that ask for
      one
    - `insecure`: accept any certificate
    """

    ca: str = ""
    server_name: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False

    _name = field_validator("server_name")(shorthand.check_server_name)

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.insecure and self.ca:
            raise ValueError("insecure accepts any certificate, so that ca has no effect")
        if self.key and not self.cert:
            raise ValueError("key is set without cert; expected the certificate of the key")
        return self


class UpstreamSpec(Model):
    """How the proxy connects to replicas.

    - `tls`: encrypt connections: `true`, or a mapping. Default: none
    - `proxy_protocol`: the version of the PROXY header with which each connection begins, `v1` or
      `v2`: it names the client. Default: none
    """

    tls: UpstreamTlsSpec | None = None
    proxy_protocol: Literal["v1", "v2"] | None = None

    _switch = field_validator("tls", mode="before")(shorthand.expand_upstream_tls)
