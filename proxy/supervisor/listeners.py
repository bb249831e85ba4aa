"""Which addresses are open: those of the configuration for good, those of the snapshot with it."""

from collections.abc import Mapping

from proxy.ipc.address import BadAddress
from proxy.ipc.sockets import OpenSockets, adopt, open_address
from proxy.supervisor.upgrade import close_unused
from proxy.supervisor.worker_handle import Open
from proxy.wire.report import ListenFailed, Listening
from proxy.wire.snapshot import Listener, Snapshot


class Listeners:
    """`open` is what is open, `failed` why an address that is wanted is not."""

    def __init__(self, own: tuple[str, ...], slots: int) -> None:
        self._own = own
        self._slots = slots
        self.open: Open = {}
        self.failed: dict[str, str] = {}

    def adopt(self, given: Mapping[str, OpenSockets], snapshot: Snapshot) -> None:
        """Go on with sockets that were open before us."""
        wanted = self._wanted(snapshot)
        for address, sockets in given.items():
            if address in wanted:
                listening = adopt(sockets.bound, sockets.descriptors, self._slots)
                self.open[address] = (wanted[address], listening)
        close_unused(given, self.open)

    def sync(self, snapshot: Snapshot) -> None:
        """Open what is wanted and closed, close what is open and not wanted."""
        wanted = self._wanted(snapshot)
        self.failed = {}
        still: Open = {}
        for address, (_, listening) in self.open.items():
            if address in wanted:
                still[address] = (wanted[address], listening)
            else:
                listening.close()
        for address in wanted.keys() - still.keys():
            try:
                still[address] = (wanted[address], open_address(address, self._slots))
            except (OSError, BadAddress) as error:
                self.failed[address] = reason(error)
        self.open = still

    def close(self) -> None:
        """Give every address back."""
        for _, listening in self.open.values():
            listening.close()

    def bound(self, address: str) -> str:
        """Where an open address is bound."""
        return self.open[address][1].bound

    def message(self) -> Listening:
        """What the feed is told of the open ones."""
        return Listening({asked: listening.bound for asked, (_, listening) in self.open.items()})

    def failures(self) -> list[ListenFailed]:
        """What the feed is told of the others."""
        return [ListenFailed(address, error) for address, error in self.failed.items()]

    def hand_over(self) -> dict[str, OpenSockets]:
        """The open sockets, for a successor."""
        return {asked: listening.hand_over() for asked, (_, listening) in self.open.items()}

    def _wanted(self, snapshot: Snapshot) -> dict[str, Listener]:
        """The snapshot may say more about an address of the configuration."""
        ours = {address: Listener(address) for address in self._own}
        return ours | {listener.address: listener for listener in snapshot.listeners}


def reason(error: Exception) -> str:
    """What went wrong, without numbers that help nobody."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
