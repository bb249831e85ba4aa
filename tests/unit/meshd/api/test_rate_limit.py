"""The rate limit of clients of the TCP address: exact, per client, in bounded memory."""

from meshd.api.rate_limit import PeerLimiter, client_key


def test_a_burst_then_the_rate() -> None:
    limiter = PeerLimiter(rate=2.0, burst=3.0)
    assert [limiter.take("10.0.0.1", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limiter.take("10.0.0.2", 0.0) == 0.0
    assert limiter.take("10.0.0.1", 0.5) == 0.0
    assert limiter.take("10.0.0.1", 0.5) == 0.5
    assert [limiter.take("10.0.0.1", 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_failures_count_more_but_do_not_block_for_ever() -> None:
    limiter = PeerLimiter(rate=1.0, burst=10.0)
    for _ in range(100):
        limiter.take("10.0.0.1", 0.0, cost=5.0)
    assert limiter.take("10.0.0.1", 0.0) == 11.0
    assert limiter.take("10.0.0.1", 11.0) == 0.0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    limiter = PeerLimiter(rate=1.0, burst=1.0)
    assert limiter.take("a", 100.0) == 0.0
    assert limiter.take("a", 50.0) > 0.0


def test_memory_is_bounded() -> None:
    limiter = PeerLimiter(peers=10)
    for number in range(1000):
        limiter.take(f"10.0.{number // 256}.{number % 256}", 0.0)
    assert len(limiter) == 10


def test_an_ipv6_network_is_one_client() -> None:
    assert client_key("2001:db8::1") == client_key("2001:db8::ffff:1") == "2001:db8::/64"
    assert client_key("::ffff:10.0.0.1") == "10.0.0.1"
    assert client_key("fe80::1%eth0") == "fe80::/64"
    assert client_key("") == ""
