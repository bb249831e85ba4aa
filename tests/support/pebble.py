"""Let's Encrypt's test server pebble, a real ACME authority, and the DNS that it asks.

By default it refuses a share of good nonces and validates again and again, as the real one may. All
names resolve to 127.0.0.1.
"""

import datetime
import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.ports import free_port
from tests.support.waiting import wait_until_blocking

MAC_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
"""The key of the external account `kid-1`."""
TOOLS = ("pebble", "pebble-challtestsrv")


def is_installed() -> bool:
    """Whether the programs are on the path."""
    return all(map(shutil.which, TOOLS))


def self_signed(folder: Path, name: str, days: float = 30) -> tuple[Path, Path]:
    """Write a certificate for localhost that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / f"{name}.pem", folder / f"{name}-key.pem"
    cert.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert, private


class Pebble:
    """A running authority.

    - `directory`, `ca`: URL of its directory, and the file that its own certificate is verified by.
    - `http_port`, `tls_port`: where it validates names.
    - `life`: seconds for which its certificates are valid.
    - `external`: whether it requires the external account `kid-1`.
    """

    def __init__(
        self, folder: Path, *, life: int = 90 * 86400, external: bool = False, **variables: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.http_port, self.tls_port = free_port(), free_port()
        self._folder = folder
        self._variables = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"} | variables
        self._port, self._manage, self._dns_port = free_port(), free_port(), free_port()
        self._dns_manage = free_port()
        cert, key = self_signed(folder, "pebble")
        self.ca = str(cert)
        self.directory = f"https://127.0.0.1:{self._port}/dir"
        settings = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": f"127.0.0.1:{self._manage}",
            "certificate": str(cert),
            "privateKey": str(key),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": external,
            "externalAccountMACKeys": {"kid-1": MAC_KEY},
            "domainBlocklist": ["blocked.test"],
            "certificateValidityPeriod": life,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        self._dns = self._spawn(
            "pebble-challtestsrv", "-dns01", f"127.0.0.1:{self._dns_port}", "-http01", "",
            "-https01", "", "-tlsalpn01", "", "-management", f"127.0.0.1:{self._dns_manage}",
            "-defaultIPv6", "",
        )  # fmt: skip
        self.start()

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._folder / "pebble.log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | self._variables
            )

    def start(self) -> None:
        """Start the authority, which has forgotten everything, and wait until it answers."""
        self._process = self._spawn(
            "pebble", "-config", str(self._folder / "pebble.json"),
            "-dnsserver", f"127.0.0.1:{self._dns_port}", "-strict",
        )  # fmt: skip
        wait_until_blocking(self._answers, 10, "pebble to answer")

    def _answers(self) -> bool:
        try:
            return bool(self._get(self.directory))
        except OSError:
            return False

    def _get(self, url: str) -> bytes:
        context = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(url, context=context, timeout=5) as response:
            return bytes(response.read())

    def stop(self) -> None:
        """End the authority; the DNS continues."""
        self._process.kill()
        self._process.wait()

    def root(self) -> str:
        """Return the certificate (PEM) that clients verify issued ones by."""
        return self._get(f"https://127.0.0.1:{self._manage}/roots/0").decode()

    def resolve(self, name: str, address: str) -> None:
        """Let a name resolve to this address."""
        for action in ("clear-a", "add-a"):
            body = json.dumps({"host": name, "addresses": [address]}).encode()
            url = f"http://127.0.0.1:{self._dns_manage}/{action}"
            urllib.request.urlopen(url, data=body, timeout=5).close()

    def log(self) -> str:
        """Return what it has logged."""
        return (self._folder / "pebble.log").read_text(errors="replace")

    def close(self) -> None:
        """End all processes."""
        for process in (self._process, self._dns):
            process.kill()
            process.wait()
