"""The set of open listening addresses: those of the configuration plus those of the snapshot.

Owned by `supervisor`. Configured addresses stay open for the whole life of the process; the
others are opened and closed as the snapshot changes. `proxy.ipc.sockets` opens the sockets.
"""

from collections.abc import Mapping

from proxy.ipc.address import BadAddress
from proxy.ipc.sockets import OpenSockets, adopt, open_address, set_mode
from proxy.supervisor.upgrade import close_unused
from proxy.supervisor.worker_handle import OpenListeners
from proxy.wire.report import ListenFailed, Listening
from proxy.wire.snapshot import Listener, Snapshot


class Listeners:
    """The open listening addresses and their sockets.

    `configured` are the addresses of the configuration, `settings` what is set of some of them.

    - `open`: open listeners by configured address
    - `listen_errors`: error text by address, for addresses that could not be opened
    """

    def __init__(
        self, configured: tuple[str, ...], settings: tuple[Listener, ...], slots: int
    ) -> None:
        given = {listener.address: listener for listener in settings}
        self._configured = {each: given.get(each, Listener(each)) for each in configured}
        self._slots = slots
        self.open: OpenListeners = {}
        self.listen_errors: dict[str, str] = {}

    def adopt(self, inherited: Mapping[str, OpenSockets], snapshot: Snapshot) -> None:
        """Take over sockets that were opened before an upgrade."""
        wanted = self._wanted(snapshot)
        for address, sockets in inherited.items():
            if address in wanted:
                listening = adopt(sockets.bound, sockets.descriptors, self._slots)
                set_mode(listening.bound, wanted[address].mode)
                self.open[address] = (wanted[address], listening)
        close_unused(inherited, self.open)

    def sync(self, snapshot: Snapshot) -> None:
        """Open the wanted addresses that are closed; close the others."""
        wanted = self._wanted(snapshot)
        self.listen_errors = {}
        synced: OpenListeners = {}
        for address, (_, listening) in self.open.items():
            if address in wanted:
                synced[address] = (wanted[address], listening)
            else:
                listening.close()
        for address in wanted.keys() - synced.keys():
            try:
                opened = open_address(address, self._slots, wanted[address].mode)
                synced[address] = (wanted[address], opened)
            except (OSError, BadAddress) as error:
                self.listen_errors[address] = error_text(error)
        self.open = synced

    def close(self) -> None:
        """Close every address."""
        for _, listening in self.open.values():
            listening.close()

    def bound_address(self, address: str) -> str:
        """Return the address that an open listener is bound to (port 0 resolved)."""
        return self.open[address][1].bound

    def listening_message(self) -> Listening:
        """Return the feed message that lists the open addresses."""
        return Listening({asked: listening.bound for asked, (_, listening) in self.open.items()})

    def failure_messages(self) -> list[ListenFailed]:
        """Return one feed message per address that could not be opened."""
        return [ListenFailed(address, error) for address, error in self.listen_errors.items()]

    def export(self) -> dict[str, OpenSockets]:
        """Return the open sockets by number, for an upgrade."""
        return {asked: listening.export() for asked, (_, listening) in self.open.items()}

    def _wanted(self, snapshot: Snapshot) -> dict[str, Listener]:
        # A snapshot's listener replaces the plain one of a configured address: it has more detail.
        return self._configured | {listener.address: listener for listener in snapshot.listeners}


def error_text(error: Exception) -> str:
    """Return the text of an error, without the errno prefix."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
