"""The root process of a mesh: holds the listening sockets, the workers, the last good snapshot.

Started by `proxy.__main__`. Wires four parts: `Listeners`, the `WorkerPool`, the `FeedServer`
that the control process connects to, and the `ChildProcesses`. Small on purpose: nothing here
looks at a request, evaluates a policy or calls a container engine. So it has little reason to
crash, and every other process may crash and be restarted.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from proxy.ipc.address import BadAddress
from proxy.ipc.config import SupervisorConfig
from proxy.ipc.signals import hold_signals, release_signals
from proxy.supervisor import snapshot_file, upgrade
from proxy.supervisor.child_processes import ChildProcesses
from proxy.supervisor.feed_server import FeedServer
from proxy.supervisor.listeners import Listeners, error_text
from proxy.supervisor.upgrade import UpgradeState
from proxy.supervisor.worker_pool import WorkerPool
from proxy.tls import openssl
from proxy.wire.report import (
    SUPERVISOR,
    Hello,
    Message,
    Publish,
    PublishDelta,
    Resync,
    Workers,
    read_publication,
)
from proxy.wire.snapshot import Generation, MissingService, Snapshot

_log = logging.getLogger(__name__)
_TICK_SECONDS = 0.25
"""Interval of the health check of workers and child processes; their shortest timeout is 2 s."""
_PAUSE_SECONDS = 1.0
"""A tick that is later than this means that the supervisor was paused, not the workers."""
_CERTIFICATE_SECONDS = 1.0
"""Interval at which certificate files are compared with what was read of them."""
_SHUTDOWN_POLL_SECONDS = 0.05
"""Interval at which a shutdown looks for workers that have ended."""
_UNSENT_SECONDS = 5.0
"""Time that an upgrade waits for workers to read what was sent to them: more than a worker has to
acknowledge a snapshot, so that one that hangs is killed first."""
_UNSENT_POLL_SECONDS = 0.05
"""Interval at which an upgrade looks for messages that were not read yet."""


class StartError(Exception):
    """An address cannot be opened or the workers do not start; the text says why."""


class Supervisor:
    """The root process, which holds the sockets and starts every other process.

    - `config_file`: where `config` was read from; the next version reads it again
    - `inherited`: state of the version before, after an upgrade
    """

    def __init__(
        self, config: SupervisorConfig, config_file: str, inherited: UpgradeState | None
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._inherited = inherited
        self._snapshot = Snapshot(generation=Generation())
        self._listeners = Listeners(config.listen, config.listeners, config.workers, config.peer)
        self._feed_server = FeedServer(self._greeting, self._publish)
        self._worker_pool = WorkerPool(
            config, self._handle_worker_message, self._handle_live_changed, self._announce
        )
        self._child_processes = ChildProcesses(config.children, self._feed_server.adopt)
        self._save_needed = asyncio.Event()
        self._saved = self._snapshot
        self._shutdown = asyncio.Event()
        self._fast_shutdown = asyncio.Event()
        self._upgrade_task: asyncio.Task[None] | None = None
        self._announced = False
        self._had_terminal = os.isatty(1)

    async def run(self) -> int:
        """Serve until a signal stops it; return the exit code.

        Raises StartError if it cannot start.
        """
        # Threads take no signals: one that arrives there during an upgrade would be lost.
        threads = ThreadPoolExecutor(initializer=hold_signals)
        asyncio.get_running_loop().set_default_executor(threads)
        self._restore_snapshot()
        self._open_addresses()
        await self._open_feed()
        # Before the file: a program that reads it may send a signal at once.
        self._handle_signals()
        self._write_pid_file()
        tasks = [
            asyncio.create_task(self._watch_workers()),
            asyncio.create_task(self._save_snapshots()),
            asyncio.create_task(self._watch_certificates()),
        ]
        self._worker_pool.publish(self._snapshot, self._listeners.open)
        if self._inherited is not None:
            self._worker_pool.adopt(self._inherited.workers, self._inherited.next_worker)
            self._worker_pool.ticket_rotation.adopt(self._inherited.ticket_secrets)
            self._child_processes.adopt(self._inherited.children)
        self._worker_pool.start()
        self._child_processes.start()
        if self._inherited is not None:
            restart = self._child_processes.restart_upgraded(self._fast_shutdown)
            tasks.append(asyncio.create_task(restart))
        try:
            await self._shutdown.wait()
            return await self._shut_down()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._worker_pool.close()
            self._feed_server.close()
            self._remove_pid_file()

    # --- Snapshot and addresses

    def _restore_snapshot(self) -> None:
        """Pick the first snapshot: the inherited one, else the stored one, else the configured."""
        stored = None
        if self._config.state_dir:
            try:
                os.makedirs(self._config.state_dir, mode=0o700, exist_ok=True)
                stored = snapshot_file.load(self._snapshot_path)
            except snapshot_file.UnreadableSnapshot as error:
                _log.warning("stored snapshot ignored: %s", error)
            except OSError as error:
                raise StartError(f"state directory: {error}") from error
        if self._inherited is not None:
            stored = self._inherited.snapshot
        self._snapshot = stored or self._config.snapshot or self._snapshot

    @property
    def _snapshot_path(self) -> Path:
        return Path(self._config.state_dir) / "snapshot.bin"

    def _open_addresses(self) -> None:
        """Open all addresses.

        Raises StartError for a configured one. One of a restored snapshot may be gone: log it.
        """
        inherited = self._inherited.child_sockets if self._inherited else {}
        for address, error in self._listeners.check_certificates(self._snapshot).items():
            if address in self._config.listen:
                raise StartError(f"cannot listen on {address}: {error}")
        if self._inherited is not None:
            self._listeners.adopt(self._inherited.listening, self._snapshot)
        self._listeners.sync(self._snapshot)
        for address, error in self._listeners.listen_errors.items():
            if address in self._config.listen:
                raise StartError(f"cannot listen on {address}: {error}")
            _log.error("cannot listen on %s: %s", address, error)
        try:
            self._child_processes.open_sockets(inherited)
        except (OSError, BadAddress) as error:
            address = " ".join(error.__notes__)
            raise StartError(f"cannot listen on {address}: {error_text(error)}") from error

    def _publish(self, message: Publish | PublishDelta) -> Message | None:
        """Apply a new snapshot; return the answer for its sender, if it needs one.

        `Hello` refuses a generation that is not newer; `Resync` asks for the full snapshot.
        """
        if message.generation <= self._snapshot.generation:
            _log.warning(
                "refused snapshot %s: the current one is %s",
                message.generation,
                self._snapshot.generation,
            )
            return self._hello()
        try:
            self._snapshot = read_publication(self._snapshot, message)
        except MissingService:
            return Resync(worker=0)
        before = self._listeners.listening_message()
        self._listeners.sync(self._snapshot)
        self._worker_pool.publish(self._snapshot, self._listeners.open)
        if self._listeners.listening_message() != before:
            self._feed_server.broadcast(self._listeners.listening_message())
        for failure in self._listeners.failure_messages():
            _log.error("cannot listen on %s: %s", failure.address, failure.error)
            self._feed_server.broadcast(failure)
        return None

    def _open_failed_addresses(self) -> None:
        """Try again to open the addresses that something else held; open that for the proxies of
        other nodes once it has a certificate."""
        before = self._listeners.open.keys()
        self._listeners.sync(self._snapshot)
        opened = self._listeners.open.keys() - before
        if opened:
            _log.info("listening on %s now", ", ".join(sorted(opened)))
            self._worker_pool.publish(self._snapshot, self._listeners.open)
            self._feed_server.broadcast(self._listeners.listening_message())

    async def _save_snapshots(self) -> None:
        """Store the newest good snapshot each time it changes; in a thread, since disks can
        hang."""
        while self._config.state_dir:
            await self._save_needed.wait()
            self._save_needed.clear()
            last_good = self._worker_pool.last_good
            if last_good is None:
                continue
            try:
                await asyncio.to_thread(snapshot_file.save, self._snapshot_path, last_good)
                self._saved = last_good
            except OSError as error:
                _log.error("the snapshot could not be stored: %s", error)

    async def _watch_certificates(self) -> None:
        """Have workers serve certificates that have changed; in a thread, since disks can hang."""
        if self._listeners.has_tls and not openssl.is_available():
            _log.warning(
                "this Python's OpenSSL is not accessible: TLS sessions are resumed only on the "
                "worker that began them"
            )
        while True:
            await asyncio.sleep(_CERTIFICATE_SECONDS)
            if self._listeners.has_tls:
                found = await asyncio.to_thread(self._listeners.reread_certificates)
                if self._listeners.adopt_certificates(found):
                    self._worker_pool.publish(self._snapshot, self._listeners.open)

    # --- Messages

    def _hello(self) -> Hello:
        return Hello(role=SUPERVISOR, generation=self._snapshot.generation)

    def _greeting(self) -> Iterable[Message]:
        yield self._hello()
        yield self._listeners.listening_message()
        yield self._workers_message()
        yield from self._worker_pool.acks
        yield from self._listeners.failure_messages()

    def _handle_worker_message(self, message: Message) -> None:
        last_good = self._worker_pool.last_good
        if last_good is not None and last_good.generation > self._saved.generation:
            self._save_needed.set()
        self._feed_server.broadcast(message)

    def _workers_message(self) -> Workers:
        return Workers(self._worker_pool.live, self._shutdown.is_set())

    def _handle_live_changed(self) -> None:
        self._feed_server.broadcast(self._workers_message())
        self._stop_if_failed()

    def _stop_if_failed(self) -> None:
        if self._worker_pool.has_failed:
            self._shutdown.set()

    def _announce(self) -> None:
        """Log and print the bound addresses, once, when every worker accepts."""
        if self._announced or self._shutdown.is_set() or not self._worker_pool.is_complete:
            return
        self._announced = True
        lines = []
        for address in self._config.listen:
            listener, listening = self._listeners.open[address]
            text = f"listening on {listening.bound}"
            if listener.tls is not None:
                text += " with TLS"
            _log.info("%s, %d workers", text, self._config.workers)
            lines.append(text)
        if lines and self._config.announce and self._inherited is None:
            # In one write, so that a script that sees the first line sees all of them.
            print("\n".join(lines), flush=True)

    # --- Processes and signals

    async def _open_feed(self) -> None:
        if self._config.state_dir:
            path = Path(self._config.state_dir) / "feed.sock"
            try:
                await self._feed_server.open(path)
            except OSError as error:
                raise StartError(f"cannot listen on {path}: {error_text(error)}") from error

    async def _watch_workers(self) -> None:
        """Check workers and children periodically, and detect whether the supervisor itself was
        paused."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_TICK_SECONDS)
            paused = loop.time() - before > _TICK_SECONDS + _PAUSE_SECONDS
            self._worker_pool.tick(paused)
            self._child_processes.tick(paused)
            due = self._listeners.listen_errors or self._listeners.is_peer_due
            if due and not self._shutdown.is_set():
                self._open_failed_addresses()
            self._stop_if_failed()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_shutdown)
        loop.add_signal_handler(signal.SIGHUP, self._request_reload)
        loop.add_signal_handler(signal.SIGUSR2, self._request_upgrade)
        release_signals()

    def _request_shutdown(self) -> None:
        """SIGTERM, SIGINT: shut down gracefully; the second one shuts down fast."""
        if self._shutdown.is_set():
            self._fast_shutdown.set()
        self._shutdown.set()

    def _request_reload(self) -> None:
        """SIGHUP: open the log files again, and let child processes read their files again.

        A SIGHUP because the terminal was closed is a request to shut down.
        """
        if self._had_terminal and not os.isatty(1):
            self._request_shutdown()
            return
        _log.info("reloading: opening the log files again and reading the settings again")
        self._worker_pool.reopen_logs()
        self._child_processes.reload()

    def _request_upgrade(self) -> None:
        """SIGUSR2: upgrade to the installed version."""
        if self._upgrade_task is None or self._upgrade_task.done():
            self._upgrade_task = asyncio.create_task(self._upgrade())

    async def _upgrade(self) -> None:
        problem = await upgrade.check_installed_version(self._config_file)
        if problem is None:
            problem = await self._exec_installed_version()
        _log.error("not upgraded: %s", problem)

    async def _exec_installed_version(self) -> str:
        """Become the installed version; return the reason if that is not possible."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_UNSENT_SECONDS):
                while self._worker_pool.has_unsent:  # noqa: ASYNC110 - no event to wait for
                    await asyncio.sleep(_UNSENT_POLL_SECONDS)
        try:
            await upgrade.hold_all_signals()
            # Nothing is awaited from here on.
            if self._shutdown.is_set():
                return "shutting down"
            if self._worker_pool.has_unsent:
                return f"a worker has not read its messages for {_UNSENT_SECONDS:g} s"
            _log.info("upgrading to the installed version")
            upgrade.exec_installed_version(self._export(), self._config_file)
        except OSError as error:
            return error_text(error)
        finally:
            release_signals()

    def _export(self) -> UpgradeState:
        """Return what the new version takes over."""
        return UpgradeState(
            snapshot=self._snapshot,
            listening=self._listeners.export(),
            workers=self._worker_pool.export(),
            next_worker=self._worker_pool.next_worker,
            children=self._child_processes.export_pids(),
            child_sockets=self._child_processes.export_sockets(),
            ticket_secrets=self._worker_pool.ticket_rotation.secrets,
        )

    async def _shut_down(self) -> int:
        """Drain the workers, then stop the child processes in reverse order."""
        if self._worker_pool.has_failed:
            _log.error("the workers do not start; see their messages above")
        self._feed_server.broadcast(self._workers_message())
        _log.info("draining for up to %g s", self._config.drain)
        await self._child_processes.stop_restarting()
        self._worker_pool.drain(self._config.drain)
        self._listeners.close()
        while self._worker_pool.live:
            if self._fast_shutdown.is_set():
                self._worker_pool.kill()
                await asyncio.sleep(_SHUTDOWN_POLL_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHUTDOWN_POLL_SECONDS):
                    await self._fast_shutdown.wait()
        await self._child_processes.stop(self._fast_shutdown)
        return 1 if self._fast_shutdown.is_set() or not self._worker_pool.has_served else 0

    def _write_pid_file(self) -> None:
        if self._config.pid_file:
            try:
                path = Path(self._config.pid_file)
                written = path.with_name(f".{path.name}.{os.getpid()}")
                written.write_text(f"{os.getpid()}\n")
                written.replace(path)
            except OSError as error:
                raise StartError(f"pid file: {error}") from error

    def _remove_pid_file(self) -> None:
        """Delete the PID file, unless a process that started meanwhile has written its own."""
        if self._config.pid_file:
            path = Path(self._config.pid_file)
            with contextlib.suppress(OSError):
                if path.read_text().strip() == str(os.getpid()):
                    path.unlink()
