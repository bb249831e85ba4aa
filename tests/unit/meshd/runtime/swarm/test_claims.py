"""Names of claims."""

from meshd.runtime.swarm.claims import NAME_LENGTH, config_of


def test_a_long_name_of_a_project_has_its_own_claim() -> None:
    assert config_of("shop") == "meshd.claim.shop"
    long = [config_of("p" * 60 + end) for end in ("a", "b")]
    assert len(set(long)) == 2
    assert all(len(name) <= NAME_LENGTH for name in long)
