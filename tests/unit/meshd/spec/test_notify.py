"""`x-mesh.notify`: short forms, errors that keep the secret, and what is printed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshd.cli.main import main
from meshd.reconcile.preview.settings_diff import diff_settings
from meshd.spec.compose import load
from meshd.spec.errors import SpecError
from meshd.spec.model import Project
from meshd.spec.model.notify import TOPICS, NotifyTarget

SECRET = "T0KEN"
URL = f"https://hooks.test/services/{SECRET}"


def notify(folder: Path, text: str) -> tuple[NotifyTarget, ...]:
    file = folder / "compose.yml"
    file.write_text(f"name: shop\nservices: {{web: {{image: i}}}}\nx-mesh: {{notify: {text}}}\n")
    return load([file], environment={"HOOK": URL}).project.notify


def test_a_url_is_enough(tmp_path: Path) -> None:
    (target,) = notify(tmp_path, URL)
    assert target == NotifyTarget(url=URL)
    assert (target.format, target.events, target.host) == ("json", TOPICS, "hooks.test")
    assert notify(tmp_path, "'${HOOK}'") == (target,)
    assert notify(tmp_path, f"[{URL}]") == (target,)


def test_all_fields(tmp_path: Path) -> None:
    text = (
        f"[{{url: {URL}, format: slack, events: [rollout, disk], wait: 1m, interval: 5m, "
        "repeat: 1d}, 'http://127.0.0.1:9/x']"
    )
    first, second = notify(tmp_path, text)
    assert (first.format, first.events) == ("slack", ("rollout", "disk"))
    assert (first.wait, first.interval, first.repeat) == (60.0, 300.0, 86400.0)
    assert second.url == "http://127.0.0.1:9/x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"ftp://hooks.test/{SECRET}", "not a valid URL"),
        (f"'https://hooks.test:x/{SECRET}'", "not a valid URL"),
        (f"'https://hooks.test/{SECRET} x'", "not a valid URL"),
        (f"https://hooks.test/{SECRET}{'x' * 2100}", "not a valid URL"),
        ("***", "not a valid URL"),
        (f"{{url: {URL}, events: [nonsense]}}", "objective"),
        (f"{{url: {URL}, format: teams}}", "json"),
        (f"{{url: {URL}, repeat: 1s}}", "60"),
        (f"{{ulr: {URL}}}", "did you mean url?"),
        ("{format: slack}", "url is missing"),
    ],
)
def test_errors_say_what_is_wrong_and_keep_the_secret(tmp_path: Path, text: str, said: str) -> None:
    text = f"'{text}'" if text == "***" else text
    with pytest.raises(SpecError) as caught:
        notify(tmp_path, text)
    assert said in str(caught.value)
    assert "compose.yml:3" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text", [URL, f"[{URL}]", f"{{url: {URL}}}", f"[{{url: {URL}, format: slack}}]"]
)
def test_config_does_not_print_the_url(tmp_path: Path, text: str) -> None:
    assert notify(tmp_path, text)
    for form in ("yaml", "json"):
        done = CliRunner().invoke(
            main, ["config", "-f", str(tmp_path / "compose.yml"), "--format", form]
        )
        assert done.exit_code == 0, done.output
        assert SECRET not in done.output
        assert "***" in done.output


def test_a_change_is_shown_by_hosts() -> None:
    before = Project(name="shop", services=())
    after = Project(name="shop", services=(), notify=(NotifyTarget(url=URL),))
    assert diff_settings(before, after, frozenset()) == [
        "update shop: its webhooks become hooks.test"
    ]
    assert diff_settings(after, before, frozenset()) == ["update shop: its webhooks become none"]


def test_a_stored_project_of_before_opens_and_a_new_one_keeps_its_url() -> None:
    old = {"name": "shop", "services": []}
    assert Project.model_validate_json(json.dumps(old)).notify == ()
    project = Project(name="shop", services=(), notify=(NotifyTarget(url=URL),))
    assert Project.model_validate_json(project.model_dump_json()) == project
    assert SECRET not in repr(project)
