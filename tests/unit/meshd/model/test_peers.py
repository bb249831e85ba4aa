"""How proxies and probes reach other nodes."""

from meshd.model.peers import NO_PEERS, PeerHop, PeerSettings

SETTINGS = PeerSettings(
    {"m1": 1, "w1": 2, "w2": 0}, True, "M1", frozenset({"w2"}), "c.pem", "a.pem"
)


def test_probes_go_through_the_proxies_of_other_nodes() -> None:
    assert SETTINGS.find_hop("W1") == PeerHop("w1", 2, "c.pem", "a.pem")
    assert SETTINGS.find_hop("m1") is None, "the own node"
    assert SETTINGS.find_hop("") is None
    for node in ("w2", "w3"):
        hop = SETTINGS.find_hop(node)
        assert hop is not None
        assert hop.port == 0, "it has no proxy, and clear text is forbidden"
    allowed = PeerSettings({"w1": 2}, own_node="m1")
    assert allowed.find_hop("w2") is None
    assert NO_PEERS.find_hop("w1") is None


def test_which_nodes_have_a_proxy() -> None:
    assert [SETTINGS.has_proxy(node) for node in ("M1", "w1", "w2", "w3")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [SETTINGS.is_lost(node) for node in ("m1", "W2")] == [False, True]
