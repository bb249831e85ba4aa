"""The rotation of the secrets of TLS session tickets."""

from proxy.supervisor.ticket_rotation import KEPT, TicketRotation


def test_a_secret_is_current_and_then_kept_for_one_interval_each() -> None:
    rotation = TicketRotation(100.0, 10.0)
    (first,) = rotation.secrets
    assert not rotation.rotate(109.9)
    assert rotation.rotate(110.0)
    second, before = rotation.secrets
    assert before == first != second
    assert not rotation.rotate(119.9)
    assert rotation.rotate(121.0)
    assert rotation.secrets[1] == second
    assert len(rotation.secrets) == KEPT
    assert not rotation.rotate(130.9), "from the rotation on"


def test_an_upgrade_continues_with_the_secrets_before() -> None:
    rotation = TicketRotation(0.0, 10.0)
    own = rotation.secrets
    rotation.adopt(())
    assert rotation.secrets == own
    rotation.adopt((b"1", b"2"))
    assert rotation.secrets == (b"1", b"2")
