"""One certificate authority, as the library `acme` speaks to it (RFC 8555).

Every call blocks, so `manager` runs them in a thread. Errors of the library and of the network
become `OrderFailed` with a text for users.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import requests
from acme import challenges, client, errors, messages
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.errors import Error as JoseError
from josepy.interfaces import JSONDeSerializable
from josepy.json_util import field
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from meshd.certificates import decide
from meshd.certificates.keys import request_for
from meshd.certificates.values import (
    Account,
    AuthorityAccess,
    ChallengeAnswer,
    FailureCause,
    HeldCertificate,
    OrderFailed,
    RenewalWindow,
)
from meshd.spec.model.acme import ChallengeType

ATTEMPT_SECONDS: Final = 150.0
"""Seconds for one attempt as a whole: Let's Encrypt takes up to a minute on a bad day."""
ANSWER_SECONDS: Final = 20
"""Seconds for the authority to answer one request, and to accept the connection."""
POLL_SECONDS: Final = 1.0
"""Seconds between two questions for the state of an order."""
LONGEST_POLL: Final = 15.0
"""Seconds; a longer Retry-After between two questions would use up the deadline."""
NONCE_RETRIES: Final = 8
"""Further attempts for a request whose nonce was not accepted. An authority may refuse each nonce
that it does not know any more (RFC 8555, 6.5)."""
USER_AGENT: Final = "meshd"
_PEM: Final = "application/pem-certificate-chain"
_CAUSES: Final = {
    "accountDoesNotExist": FailureCause.ACCOUNT_LOST,
    "rateLimited": FailureCause.RATE_LIMITED,
    "serverInternal": FailureCause.UNREACHABLE,
}
"""Cause for each code of an error (RFC 8555, 6.7); REFUSED for all others."""


@challenges.ChallengeResponse.register
class TlsAlpn01Response(challenges.KeyAuthorizationChallengeResponse):
    """The message that the answer to a challenge by TLS is in place."""

    typ = "tls-alpn-01"


@challenges.Challenge.register
class TlsAlpn01(challenges.KeyAuthorizationChallenge):
    """A challenge by TLS (RFC 8737), which the library does not know."""

    typ = "tls-alpn-01"
    response_cls = TlsAlpn01Response

    def validation(self, account_key: JWK, **_: Any) -> str:
        """Return the key authorization."""
        return self.key_authorization(account_key)


class NewOrder(messages.NewOrder):
    """An order that may name the certificate that it replaces (RFC 9773, 5)."""

    replaces: str | None = field("replaces", omitempty=True)


class AuthorityConnection(client.ClientNetwork):
    """The library's connection to an authority, with a deadline, and with more than one retry of a
    refused nonce.

    - `retry_after`: the Retry-After of the last response in seconds; 0 if it had none.
    """

    def __init__(
        self, key: JWK, ca: str, deadline: float, is_cancelled: Callable[[], bool]
    ) -> None:
        super().__init__(key, alg=ES256, user_agent=USER_AGENT, timeout=ANSWER_SECONDS)
        if ca:
            self.verify_ssl = ca  # type: ignore[assignment]  # requests also takes a path here
        self.retry_after = 0.0
        self._deadline = deadline
        self._is_cancelled = is_cancelled
        self.session.hooks["response"].append(self._note_retry_after)

    def _note_retry_after(self, response: requests.Response, *_: Any, **__: Any) -> None:
        self.retry_after = 0.0
        if "Retry-After" in response.headers:
            at = client.ClientV2.retry_after(response, 0)
            self.retry_after = max(0.0, at.timestamp() - time.time())

    def check_deadline(self) -> None:
        """Raise OrderFailed if the attempt must end."""
        if self._is_cancelled():
            raise OrderFailed(FailureCause.UNREACHABLE, "the attempt was cancelled")
        if time.monotonic() > self._deadline:
            raise OrderFailed(
                FailureCause.UNREACHABLE,
                f"the authority did not finish within {ATTEMPT_SECONDS:g} s",
            )

    def get(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a GET request."""
        self.check_deadline()
        return super().get(*args, **kwargs)

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a signed request; again with another nonce if the nonce is refused."""
        for left in range(NONCE_RETRIES, -1, -1):
            self.check_deadline()
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce" or not left:
                    raise
        raise AssertionError


@dataclass(frozen=True, slots=True)
class PendingOrder:
    """An order at the authority. `offered`: the types of validation that it offers for the names
    still to be validated; empty if none is."""

    url: str
    finalize: str
    authorizations: tuple[str, ...]
    open: tuple[messages.ChallengeBody, ...]

    @property
    def offered(self) -> frozenset[str]:
        return frozenset(each.chall.typ for each in self.open)


class Authority:
    """The account at one authority, for one attempt. All methods block, and raise OrderFailed.

    - `account`: the account; with its URL once `sign_in` has returned.
    """

    def __init__(
        self, access: AuthorityAccess, account: Account, cancelled: threading.Event
    ) -> None:
        self.account = account
        self._access = access
        self._cancelled = cancelled
        private = load_pem_private_key(account.key.encode(), None)
        self._key = JWKEC(key=private)
        deadline = time.monotonic() + ATTEMPT_SECONDS
        self._network = AuthorityConnection(self._key, access.ca, deadline, cancelled.is_set)
        self._directory = messages.Directory({})

    def sign_in(self) -> Account:
        """Read the directory, and make or update the account if necessary. Return the account."""
        with self._failures():
            self._read_directory()
            if self.account.url and self.account.email == self._access.email:
                self._network.account = self._registration(self.account.url)
                return self.account
            speaker = client.ClientV2(self._directory, self._network)
            if self.account.url:
                known = self._registration(self.account.url)
                self._network.account = known
                contact = messages.UpdateRegistration(contact=self._contact)
                self._post(self.account.url, contact)
                url = self.account.url
            else:
                url = self._register(speaker)
                self._network.account = self._registration(url)
        self.account = Account(self.account.key, url, self._access.email)
        return self.account

    def _read_directory(self) -> None:
        self._directory = client.ClientV2.get_directory(self._access.directory, self._network)

    @property
    def _contact(self) -> tuple[str, ...]:
        return (f"mailto:{self._access.email}",) if self._access.email else ()

    def _registration(self, url: str) -> messages.RegistrationResource:
        return messages.RegistrationResource(body=messages.Registration(), uri=url)

    def _register(self, speaker: client.ClientV2) -> str:
        """Make the account, or find the one that has this key; return its URL."""
        binding = None
        if self._access.kid:
            binding = messages.ExternalAccountBinding.from_data(
                self._key.public_key(), self._access.kid, self._access.mac_key, self._directory
            )
        elif speaker.external_account_required():
            raise OrderFailed(
                FailureCause.REFUSED,
                "the authority requires an external account; set external_account in acme",
            )
        new = messages.NewRegistration.from_data(
            email=self._access.email or None,
            terms_of_service_agreed=True,
            external_account_binding=binding,
        )
        try:
            return str(speaker.new_account(new).uri)
        except errors.ConflictError as known:
            return known.location

    def start_order(self, name: str, replaces: str) -> PendingOrder:
        """Order a certificate for a name. `replaces`: the renewal id of the certificate before it;
        empty for none."""
        identifier = messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name)
        fields = {"replaces": replaces} if replaces and "renewalInfo" in self._links else {}
        with self._failures():
            url = self._directory["newOrder"]
            try:
                response = self._post(url, NewOrder(identifiers=[identifier], **fields))
            except (messages.Error, errors.ConflictError):
                if not fields:
                    raise
                # Another order already replaces it, or the authority has forgotten it.
                response = self._post(url, NewOrder(identifiers=[identifier]))
            order = messages.Order.from_json(response.json())
            found = [self._authorization(each) for each in order.authorizations]
        pending = [each for each in found if each.status == messages.STATUS_PENDING]
        return PendingOrder(
            response.headers["Location"],
            order.finalize,
            tuple(order.authorizations),
            tuple(challenge for each in pending for challenge in each.challenges),
        )

    @property
    def _links(self) -> dict[str, Any]:
        return self._directory.to_partial_json()

    def answer(self, order: PendingOrder, name: str, type: ChallengeType) -> ChallengeAnswer:
        """Return what the proxy must present for a challenge of the order."""
        found = self._challenge(order, type)
        return ChallengeAnswer(
            type, name, found.chall.encode("token"), found.chall.key_authorization(self._key)
        )

    def finish_order(
        self, order: PendingOrder, name: str, type: ChallengeType | None, key: str
    ) -> str:
        """Let the authority validate the name (unless `type` is None, because it already is), and
        return the certificate chain for the key, as PEM."""
        with self._failures():
            if type is not None:
                challenge = self._challenge(order, type)
                self._post(challenge.uri, challenge.chall.response(self._key))
            self._wait_validated(order)
            request = messages.CertificateRequest(csr=request_for(key, name))
            response = self._post(order.finalize, request)
            while True:
                state = messages.Order.from_json(response.json())
                if state.status == messages.STATUS_VALID and state.certificate:
                    break
                if state.status == messages.STATUS_INVALID:
                    text = _text_of(state.error) if state.error else "no reason was given"
                    raise OrderFailed(FailureCause.REFUSED, f"the order failed: {text}")
                self._wait()
                response = self._post(order.url, None)
            headers = {"Content-Type": self._network.JOSE_CONTENT_TYPE, "Accept": _PEM}
            return str(self._post(state.certificate, None, headers=headers).text)

    def read_window(self, held: HeldCertificate) -> RenewalWindow:
        """Ask when to renew a certificate (RFC 9773)."""
        window = RenewalWindow(held.renewal_id, check_at=decide.next_window_check(0, time.time()))
        with self._failures():
            self._read_directory()
            base = self._links.get("renewalInfo")
            if not base:
                return window
            response = self._network.get(f"{base}/{held.renewal_id}")
            found = messages.RenewalInfo.from_json(response.json())
            suggested = found.suggested_window
            return RenewalWindow(
                held.renewal_id,
                suggested.start.timestamp(),
                suggested.end.timestamp(),
                decide.next_window_check(self._network.retry_after, time.time()),
                str(response.json().get("explanationURL", "")),
            )

    def _challenge(self, order: PendingOrder, type: ChallengeType) -> messages.ChallengeBody:
        return next(each for each in order.open if each.chall.typ == type)

    def _wait_validated(self, order: PendingOrder) -> None:
        """Wait until all names of the order are validated."""
        waiting: Sequence[str] = order.authorizations
        while True:
            still = []
            for url in waiting:
                found = self._authorization(url)
                if found.status == messages.STATUS_PENDING:
                    still.append(url)
                elif found.status != messages.STATUS_VALID:
                    raise OrderFailed(FailureCause.VALIDATION, _describe_invalid(found))
            if not still:
                return
            waiting = still
            self._wait()

    def _authorization(self, url: str) -> messages.Authorization:
        found: messages.Authorization = messages.Authorization.from_json(
            self._post(url, None).json()
        )
        return found

    def _post(self, url: str, body: JSONDeSerializable | None, **more: Any) -> requests.Response:
        return self._network.post(url, body, new_nonce_url=self._directory["newNonce"], **more)

    def _wait(self) -> None:
        asked = self._network.retry_after
        self._cancelled.wait(min(max(asked, POLL_SECONDS), LONGEST_POLL))
        self._network.check_deadline()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what the library and the network raise into OrderFailed."""
        try:
            yield
        except messages.Error as error:
            raise OrderFailed(
                _cause_of(error), _text_of(error), self._network.retry_after
            ) from error
        except (requests.JSONDecodeError, JoseError) as error:
            text = f"{self._access.directory} does not work: its answer is not a message of ACME"
            raise OrderFailed(FailureCause.UNREACHABLE, text) from error
        except requests.RequestException as error:
            text = f"{self._access.directory} cannot be reached: {_reason_of(error)}"
            raise OrderFailed(FailureCause.UNREACHABLE, text) from error
        except errors.ClientError as error:
            response = error.args[0] if error.args else None
            text = str(error) or type(error).__name__
            if isinstance(response, requests.Response):
                text = f"it answered {response.status_code} {response.reason}"
            raise OrderFailed(
                FailureCause.UNREACHABLE,
                f"{self._access.directory} does not work: {text}",
                self._network.retry_after,
            ) from error
        except (errors.Error, ValueError, KeyError, OSError) as error:
            # A CA bundle that does not exist is an OSError.
            text = f"{self._access.directory} cannot be used: {str(error) or type(error).__name__}"
            raise OrderFailed(FailureCause.UNREACHABLE, text) from error


def _cause_of(error: messages.Error) -> FailureCause:
    return _CAUSES.get(error.code or "", FailureCause.REFUSED)


def _text_of(error: messages.Error) -> str:
    """Return a problem in one line: its text, those of its parts, and its code."""
    parts = [error.detail or error.title or error.description or "no reason was given"]
    parts += [_text_of(each) for each in error.subproblems or ()]
    return "; ".join(" ".join(part.split()) for part in parts) + f" ({error.code or error.typ})"


def _describe_invalid(found: messages.Authorization) -> str:
    for challenge in found.challenges:
        if challenge.error is not None:
            return f"validation by {challenge.chall.typ} failed: {_text_of(challenge.error)}"
    return f"the validation ended as {found.status.name}"


def _reason_of(error: requests.RequestException) -> str:
    """Return the innermost reason of a network error."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {ANSWER_SECONDS} s"
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
