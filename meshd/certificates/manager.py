"""The loop that orders what is due, and hands certificates and challenges to the proxy.

Run by the control process (`meshd.daemon.wiring`) and by the helper of `meshd proxy`. `decide` says
what is due; each attempt is a task here, with the calls of `authority` in threads. The proxy gets
`served` with each snapshot, so one order is for all workers.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, Final

import msgspec
import structlog

from meshd.certificates import decide
from meshd.certificates.authority import Authority
from meshd.certificates.decide import ExpiryWarning
from meshd.certificates.keys import InvalidCertificate, check_issued, new_key
from meshd.certificates.store import PAUSE, CertificateStore, find_served
from meshd.certificates.threads import MAX_THREADS, CallThreads
from meshd.certificates.values import (
    Account,
    AuthorityAccess,
    ChallengeAnswer,
    FailureCause,
    HeldCertificate,
    OrderFailed,
    OrderRecord,
    RenewalWindow,
    ServedCertificates,
    WantedCertificate,
)
from meshd.model.certificate import CertificateStatus
from meshd.model.event import Kind
from proxy.wire.snapshot import AcmeChallenge, CertificateFiles

_log = structlog.stdlib.get_logger(__name__)
POLL_SECONDS: Final = 1.0
"""Seconds between two looks at what is wanted and due: a host of a new deployment is ordered half a
second later."""
DELIVERY_SECONDS: Final = 15.0
"""Seconds for all workers to have the answer to a challenge: one that does not take a snapshot is
replaced after two."""
DELIVERY_POLL: Final = 0.05
"""Seconds between two looks at the workers' acknowledgements."""


class CertificateManager:
    """Keeps a certificate for each wanted name.

    - `wanted`: called for the current names.
    - `is_answered`: whether all workers answer the challenge with this token.
    - `record`: takes an event, as kind and text.
    - `on_change`: called when `served` has changed.
    - `clock`, `random`: Unix time, and random numbers.
    """

    def __init__(
        self,
        store: CertificateStore,
        wanted: Callable[[], tuple[WantedCertificate, ...]],
        is_answered: Callable[[str], bool],
        record: Callable[[Kind, str], object],
        on_change: Callable[[], None],
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._is_answered = is_answered
        self._record = record
        self._on_change = on_change
        self._clock = clock
        self._random = random
        self._threads = CallThreads()
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._challenges: dict[str, AcmeChallenge] = {}
        self._served: ServedCertificates | None = None
        store.read()

    @property
    def served(self) -> ServedCertificates:
        """What the proxy serves now; before the first order what is stored."""
        if self._served is None:
            self._served = self._find_served(self._wanted())
        return self._served

    def status(self) -> Sequence[CertificateStatus]:
        """Return what users see of each wanted name."""
        now = self._clock()
        return [
            decide.describe_wanted(
                each, self._store.find(each), self._past(each), self._pause(each), now
            )
            for each in self._wanted()
        ]

    def retry(self, name: str = "") -> bool:
        """Try again at once for a name after a failure; without one, for all names. False if the
        name is not wanted. Raises OSError."""
        wanted = [each for each in self._wanted() if name in ("", each.name)]
        for each in wanted:
            for known in (each.name, PAUSE):
                past = self._store.record(each.authority.id, known)
                if past.retry_at:
                    now = msgspec.structs.replace(past, retry_at=0.0)
                    self._store.keep_record(each.authority.id, known, now)
        return bool(wanted)

    async def run(self) -> None:
        """Order, renew and warn until cancelled."""
        try:
            while True:
                try:
                    self._step()
                except OSError as error:
                    _log.error("certificates cannot be stored", error=str(error))
                await asyncio.sleep(POLL_SECONDS)
        finally:
            tasks = list(self._attempts.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._store.close()

    def _past(self, wanted: WantedCertificate) -> OrderRecord:
        return self._store.record(wanted.authority.id, wanted.name)

    def _pause(self, wanted: WantedCertificate) -> OrderRecord:
        return self._store.record(wanted.authority.id, PAUSE)

    def _keep(self, wanted: WantedCertificate, record: OrderRecord) -> None:
        self._store.keep_record(wanted.authority.id, wanted.name, record)

    def _step(self) -> None:
        """Start what is due, and warn. Raises OSError."""
        wanted, now = self._wanted(), self._clock()
        self._update_served(wanted)
        if not wanted or not self._store.acquire():
            return
        orders: list[tuple[float, WantedCertificate]] = []
        questions: list[tuple[WantedCertificate, HeldCertificate]] = []
        for each in wanted:
            held, past = self._store.find(each), self._past(each)
            if held is not None:
                self._warn(each, held, past, now)
            if each.name in self._attempts:
                continue
            if decide.order_time(held, past, self._pause(each).retry_at) <= now:
                orders.append((held.not_after if held else 0.0, each))
            elif held is not None and decide.asks_for_window(held, past, now):
                questions.append((each, held))
        for _, each in sorted(orders, key=lambda order: order[0]):
            self._start(each, self._order(each))
        for each, held in questions:
            self._start(each, self._read_window(each, held))

    def _start(self, wanted: WantedCertificate, work: Coroutine[Any, Any, None]) -> None:
        """Start an attempt, unless too many run; then it is due at the next look too."""
        if len(self._attempts) >= MAX_THREADS:
            work.close()
            return
        self._attempts[wanted.name] = asyncio.create_task(self._attempt(wanted, work))

    async def _attempt(self, wanted: WantedCertificate, work: Coroutine[Any, Any, None]) -> None:
        """Run an attempt. Whatever happens, the next one waits: an authority limits their number,
        also that of certificates that were issued and then not stored."""
        try:
            await work
        except OSError as error:
            text = f"the state cannot be written: {error}"
            self._fail(wanted, OrderFailed(FailureCause.REFUSED, text))
        except Exception as error:  # noqa: BLE001 (no error may order again and again)
            _log.exception("attempt to get a certificate failed", name=wanted.name)
            self._fail(wanted, OrderFailed(FailureCause.REFUSED, f"unexpected error: {error!r}"))
        finally:
            del self._attempts[wanted.name]

    def _update_served(self, wanted: Sequence[WantedCertificate]) -> None:
        served = self._find_served(wanted)
        if served != self._served:
            self._served = served
            self._on_change()

    def _find_served(self, wanted: Sequence[WantedCertificate]) -> ServedCertificates:
        challenges = tuple(self._challenges[name] for name in sorted(self._challenges))
        return ServedCertificates(find_served(self._store, wanted), challenges)

    def _warn(
        self, wanted: WantedCertificate, held: HeldCertificate, past: OrderRecord, now: float
    ) -> None:
        """Record once that a certificate is about to expire, and once that it has."""
        warning = decide.expiry_warning(held.not_before, held.not_after, now)
        if warning <= past.warned:
            return
        self._keep(wanted, msgspec.structs.replace(past, warned=int(warning)))
        reason = past.error or self._pause(wanted).error or "it was not renewed yet"
        if warning is ExpiryWarning.EXPIRED:
            text = f"the certificate of {wanted.name} has expired: {reason}"
        else:
            days = (held.not_after - now) / 86400.0
            text = f"the certificate of {wanted.name} expires in {days:.1f} days: {reason}"
        self._record(Kind.CERTIFICATE_EXPIRING, text)

    async def _order(self, wanted: WantedCertificate) -> None:
        """Order the certificate of one name. Raises OSError."""
        access, name, cancelled = wanted.authority, wanted.name, threading.Event()
        before = self._store.find(wanted)
        try:
            authority = Authority(access, self._account(access), cancelled)
            await self._sign_in(authority, access)
            key, chain = await self._obtain(wanted, authority, before)
            held = self._store.keep_certificate(access.id, name, key, chain)
        except OrderFailed as failed:
            if failed.cause is FailureCause.ACCOUNT_LOST:
                self._store.forget_account(access.id)
            self._fail(wanted, failed)
        except InvalidCertificate as error:
            self._fail(wanted, OrderFailed(FailureCause.REFUSED, str(error)))
        else:
            self._keep(wanted, OrderRecord())
            days = (held.not_after - self._clock()) / 86400.0
            self._record(
                Kind.CERTIFICATE_RENEWED if before else Kind.CERTIFICATE_ISSUED,
                f"certificate of {name} {'renewed' if before else 'issued'} by "
                f"{access.directory}; it is valid for {days:.1f} days",
            )
        finally:
            cancelled.set()
            self._withdraw(name)

    def _account(self, access: AuthorityAccess) -> Account:
        """Return the account at an authority. Its key is stored before the authority knows it, so
        that a crash does not make a second account."""
        account = self._store.account(access.id)
        if account is None:
            account = Account(new_key())
            self._store.keep_account(access.id, account)
        return account

    async def _sign_in(self, authority: Authority, access: AuthorityAccess) -> None:
        """Sign in. A failure pauses all orders at this authority. Raises OrderFailed, OSError."""
        past = self._store.record(access.id, PAUSE)
        try:
            account = await self._threads.run(authority.sign_in)
        except OrderFailed as failed:
            if past == self._store.record(access.id, PAUSE):  # not two attempts at once
                paused = decide.after_failure(past, failed, self._clock(), self._random.random())
                self._store.keep_record(access.id, PAUSE, paused)
            raise
        self._store.keep_account(access.id, account)
        self._store.keep_record(access.id, PAUSE, OrderRecord())

    async def _obtain(
        self, wanted: WantedCertificate, authority: Authority, before: HeldCertificate | None
    ) -> tuple[str, str]:
        """Return a new key and the certificate chain for it. Raises OrderFailed, OSError,
        InvalidCertificate."""
        name, replaces = wanted.name, before.renewal_id if before else ""
        order = await self._threads.run(lambda: authority.start_order(name, replaces))
        chosen = None
        if order.open:
            past = self._past(wanted)
            chosen = decide.choose_challenge(wanted.challenges, order.offered, past.failures)
            if chosen is None:
                allowed = ", ".join(wanted.challenges)
                raise OrderFailed(
                    FailureCause.REFUSED, f"the authority does not offer validation by {allowed}"
                )
            await self._deliver(authority.answer(order, name, chosen))
        key = new_key()
        chain = await self._threads.run(lambda: authority.finish_order(order, name, chosen, key))
        check_issued(key, chain, name)
        return key, chain

    async def _deliver(self, answer: ChallengeAnswer) -> None:
        """Let all workers answer a challenge. Raises OrderFailed, OSError."""
        files = None
        if answer.type == "tls-alpn-01":
            path = self._store.keep_answer(answer)
            files = CertificateFiles(path, names=(answer.name,), version=answer.token)
        self._challenges[answer.name] = AcmeChallenge(
            answer.type, answer.name, answer.token, answer.key_authorization, files
        )
        self._update_served(self._wanted())
        for _ in range(round(DELIVERY_SECONDS / DELIVERY_POLL)):
            if self._is_answered(answer.token):
                return
            await asyncio.sleep(DELIVERY_POLL)
        raise OrderFailed(
            FailureCause.PROXY,
            f"the proxy did not take the challenge within {DELIVERY_SECONDS:g} s",
        )

    def _withdraw(self, name: str) -> None:
        """End the answer to a challenge, and serve what was issued."""
        self._challenges.pop(name, None)
        self._store.remove_answers(name)
        self._update_served(self._wanted())

    def _fail(self, wanted: WantedCertificate, failed: OrderFailed) -> None:
        """Record a failed attempt, with the reason and the time of the next one."""
        now = self._clock()
        after = decide.after_failure(self._past(wanted), failed, now, self._random.random())
        with contextlib.suppress(OSError):  # it is remembered in memory
            self._keep(wanted, after)
        minutes = (max(after.retry_at, self._pause(wanted).retry_at) - now) / 60.0
        held = self._store.find(wanted)
        kept = ""
        if held is not None:
            days = (held.not_after - now) / 86400.0
            kept = f"; the old one is valid for {days:.1f} more days"
        self._record(
            Kind.CERTIFICATE_FAILED,
            f"no certificate for {wanted.name}: {failed}; next attempt in {minutes:.1f} min{kept}",
        )

    async def _read_window(self, wanted: WantedCertificate, held: HeldCertificate) -> None:
        """Ask the authority when to renew."""
        access, cancelled = wanted.authority, threading.Event()
        try:
            authority = Authority(access, Account(new_key()), cancelled)
            window = await self._threads.run(lambda: authority.read_window(held))
        except OrderFailed as failed:
            _log.debug("no renewal information", name=wanted.name, error=str(failed))
            window = self._past(wanted).window or RenewalWindow(held.renewal_id)
            check_at = decide.next_window_check(0.0, self._clock())
            window = msgspec.structs.replace(window, renewal_id=held.renewal_id, check_at=check_at)
        finally:
            cancelled.set()
        with contextlib.suppress(OSError):  # it is remembered in memory
            self._keep(wanted, msgspec.structs.replace(self._past(wanted), window=window))
