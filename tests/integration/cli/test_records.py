"""`meshd record` against a served API: its output, its requests, and exit codes."""

import json

import pytest

from meshd.cli.commands.record import describe_choice
from proxy.observe.flight import Flight
from tests.fakes.control import FakeControl
from tests.fakes.record_control import flight
from tests.support.commands import Meshd


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshd.cli.commands.record.SAVE_SECONDS", 0.0)


async def test_records_are_saved_and_listed(meshd: Meshd, control: FakeControl) -> None:
    header, line = (await meshd("record", "list")).output.splitlines()
    assert header.split() == ["ID", "TIME", "SERVICE", "SIZE", "REASON"]
    assert line.split()[0] == "20260601-1-shop_web"
    assert line.endswith("shop/web  4 KiB  slow")
    made = await meshd("record", "save")
    assert (made.exit_code, made.output) == (0, "20260601-2-new\n")
    service = control.status().services[0]
    made = await meshd("record", "save", service.name, "-o", "json")
    assert json.loads(made.output)["service"] == f"{service.project}/{service.name}"
    unknown = await meshd("record", "save", "nonsense")
    assert unknown.exit_code == 1


async def test_a_record_is_shown_as_a_table(meshd: Meshd) -> None:
    shown = await meshd("record", "show", "20260601-1-shop_web")
    header, first, *_, last = shown.output.splitlines()
    assert header.split()[:5] == ["TIME", "STATUS", "TOTAL", "TIMING", "REQUEST"]
    assert "GET shop.test/a" in first
    assert "hot-cold of 3, 2 in flight there" in first
    assert "\x1b" not in last, "clients choose the target"


@pytest.mark.parametrize(
    ("options", "targets"),
    [
        ((), ["/a", "/slow", "/bad\x1b[2J"]),
        (("--slower-than", "1s"), ["/slow"]),
        (("--status", "5xx"), ["/bad\x1b[2J"]),
        (("--path", "^/a"), ["/a"]),
        (("--tail", "1"), ["/bad\x1b[2J"]),
    ],
)
async def test_filters(meshd: Meshd, options: tuple[str, ...], targets: list[str]) -> None:
    shown = await meshd("record", "show", "20260601-1-shop_web", "-o", "json", *options)
    assert [each["request"]["target"] for each in json.loads(shown.output)] == targets


async def test_live_requests_over_tcp(meshd: Meshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the files of the daemon's machine they come through the API."""
    monkeypatch.setattr("meshd.cli.commands.tap.is_remote", lambda: True)
    shown = await meshd("tap", "-o", "json")
    lines = [json.loads(line) for line in shown.output.splitlines()]
    assert [each["request"]["target"] for each in lines] == ["/a", "/slow", "/bad\x1b[2J"]
    slow = await meshd("tap", "--slower-than", "1s", "--status", "2xx", "-n", "1")
    assert (slow.exit_code, slow.output.splitlines()[0]) == (0, "(1 more)")
    assert "shop.test/slow" in slow.output
    assert "\x1b[2J" not in (await meshd("tap")).output
    unknown = await meshd("tap", "nonsense")
    assert unknown.exit_code == 1


async def test_nonsense_is_refused(meshd: Meshd) -> None:
    assert (await meshd("record", "show", "nonsense")).exit_code == 1
    assert (await meshd("record", "show", "x", "--status", "9xx")).exit_code == 2
    assert (await meshd("record", "show", "x", "--path", "(")).exit_code == 2


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ("only", "only endpoint, 2 in flight there"),
        ("sticky", "sticky cookie, of 3, 2 in flight there"),
        ("least-loaded", "fewest requests of 3, others saturated, 2 in flight there"),
        ("hedge", "second attempt was faster, 2 in flight there"),
        ("balanced", "hot-cold of 3, 2 in flight there"),
        ("", "no endpoint answered, after web-0 failed"),
    ],
)
def test_choices_in_words(choice: str, text: str) -> None:
    tried = () if choice else ("web-0",)
    made = Flight(flight().request, "", "", choice, "hot-cold", 3, 2, tried)
    assert describe_choice(made) == text
