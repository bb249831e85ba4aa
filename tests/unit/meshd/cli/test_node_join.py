"""What `meshd node join` checks before it becomes the supervisor."""

import io
import os
import time
from pathlib import Path

import pytest

from meshd.cli import node_join
from meshd.cli.node_join import (
    NodeStartError,
    complete_address,
    ensure_joined,
    hold_state,
    read_token,
    supervisor_config,
)
from meshd.node_proxy.authority import MeshAuthority, make_authority, new_request
from meshd.node_proxy.enrollment import JoinFailed, NodeIdentity, store_identity
from meshd.node_proxy.identity import PeerIdentity, PeerRole
from meshd.node_proxy.join_token import JoinToken, to_text
from tests.support.ports import free_port


def make_token(seconds: float = 60.0) -> str:
    authority = MeshAuthority(*make_authority(time.time()))
    key, certificate = authority.issue_join("t", time.time(), seconds)
    return to_text(JoinToken(authority.certificate, certificate, key))


@pytest.mark.parametrize(
    ("text", "address"),
    [("m1", "m1:15779"), ("10.0.0.1:99", "10.0.0.1:99"), ("[::1]:99", "[::1]:99")],
)
def test_addresses_have_a_default_port(text: str, address: str) -> None:
    assert complete_address(text) == address


@pytest.mark.parametrize("text", ["", ":99", "unix:/x", "m1:0", "m1:port", "::1"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(NodeStartError):
        complete_address(text)


def test_a_token_is_read_from_a_file_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = make_token()
    (tmp_path / "token").write_text(text + "\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert read_token(str(tmp_path / "token")) == read_token("-")
    (tmp_path / "other").write_bytes(b"\xff\xfe")
    for name, reason in (("none", "No such file"), ("other", "not text")):
        with pytest.raises(NodeStartError, match=f"{name} cannot be read: .*{reason}"):
            read_token(str(tmp_path / name))
    (tmp_path / "other").write_text("SWMTKN-1-x")
    with pytest.raises(NodeStartError, match="the token is not valid"):
        read_token(str(tmp_path / "other"))


def test_one_proxy_runs_for_a_state_directory(tmp_path: Path) -> None:
    held = hold_state(tmp_path)
    with pytest.raises(NodeStartError, match=r"runs in .* already"):
        hold_state(tmp_path)
    os.close(held)
    os.close(hold_state(tmp_path))


def test_a_node_joins_once(tmp_path: Path) -> None:
    with pytest.raises(NodeStartError, match=r"has not joined .*; give --token-file"):
        ensure_joined(tmp_path, ["m1:1"], "", "n1")
    with pytest.raises(NodeStartError, match="'N 1' is not a valid name of a node; give --name"):
        ensure_joined(tmp_path, ["m1:1"], "token", "N 1")
    (tmp_path / "token").write_text(make_token())
    nowhere = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(JoinFailed) as error:
        ensure_joined(tmp_path, nowhere, str(tmp_path / "token"), "n1")
    assert str(error.value).count("cannot join at 127.0.0.1") == 2
    authority = MeshAuthority(*make_authority(time.time()))
    key, request = new_request()
    node = PeerIdentity(PeerRole.NODE, "n1")
    for age, joined in ((0.0, True), (30 * 86400.0, False)):
        certificate = authority.issue(node, request, time.time() - age)
        store_identity(tmp_path, NodeIdentity(key, certificate, authority.certificate))
        if joined:
            assert not ensure_joined(tmp_path, ["m1:1"], "", "n1")
        else:
            with pytest.raises(
                NodeStartError, match=r"until its certificate expired .*`meshd node remove n1`"
            ):
                ensure_joined(tmp_path, ["m1:1"], "", "n1")


def test_the_supervisor_runs_the_agent(tmp_path: Path) -> None:
    config = supervisor_config(tmp_path, ["m1:1", "m2:1"], ["127.0.0.1:0"], 3, "0.0.0.0:15778")
    (agent,) = config.children
    assert agent.argv[-2:] == ("m1:1", "m2:1")
    assert agent.silence_seconds == node_join.AGENT_SILENCE_SECONDS
    assert config.peer is not None
    assert config.peer.listen == "0.0.0.0:15778"
    assert (config.workers, config.state_dir) == (3, str(tmp_path))
