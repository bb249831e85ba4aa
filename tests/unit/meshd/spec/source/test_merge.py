"""Keys whose merging has a rule: the values are those of Docker Compose."""

from textwrap import dedent

import pytest

from meshd.spec.source.merge import merge
from meshd.spec.source.yaml_tree import parse_yaml


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        (
            "networks: {n: {labels: {a: 1, b: 2}}}",
            "networks: {n: {labels: [b=3]}}",
            {"networks": {"n": {"labels": {"a": 1, "b": "3"}}}},
        ),
        (
            "volumes: {v: {labels: [a=1]}}",
            "volumes: {v: {labels: {a: 2}}}",
            {"volumes": {"v": {"labels": {"a": 2}}}},
        ),
        (
            "networks: {n: {ipam: {config: [{subnet: 10.1.0.0/16, gateway: 10.1.0.1}]}}}",
            "networks: {n: {ipam: {config: [{subnet: 10.1.0.0/16, ip_range: 10.1.2.0/24}]}}}",
            {
                "networks": {
                    "n": {
                        "ipam": {
                            "config": [
                                {
                                    "subnet": "10.1.0.0/16",
                                    "gateway": "10.1.0.1",
                                    "ip_range": "10.1.2.0/24",
                                }
                            ]
                        }
                    }
                }
            },
        ),
        (
            "networks: {n: {ipam: {config: [{subnet: 10.1.0.0/16}]}}}",
            "networks: {n: {ipam: {config: [{subnet: 10.2.0.0/16}]}}}",
            {"networks": {"n": {"ipam": {"config": [{"subnet": "10.2.0.0/16"}]}}}},
        ),
        (
            "services: {a: {devices: ['/dev/x:/dev/z', /dev/y]}}",
            "services: {a: {devices: ['/dev/w:/dev/z:r', {source: /dev/v, target: /dev/y}]}}",
            {
                "services": {
                    "a": {"devices": ["/dev/w:/dev/z:r", {"source": "/dev/v", "target": "/dev/y"}]}
                }
            },
        ),
        (
            "services: {a: {build: {extra_hosts: [h=1.1.1.1], additional_contexts: [x=./a]}}}",
            "services: {a: {build: {extra_hosts: {h: 2.2.2.2}, additional_contexts: {x: ./b}}}}",
            {
                "services": {
                    "a": {
                        "build": {
                            "extra_hosts": ["h=1.1.1.1", "h=2.2.2.2"],
                            "additional_contexts": {"x": "./b"},
                        }
                    }
                }
            },
        ),
    ],
)
def test_merging_by_name_target_or_subnet(base: str, over: str, expected: object) -> None:
    assert merge([parse_yaml(base, "a"), parse_yaml(dedent(over), "b")]).to_plain() == expected
