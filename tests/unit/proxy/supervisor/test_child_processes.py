"""The supervisor notices a child process that hangs."""

import os

from proxy.supervisor.child_processes import Watchdog


def test_a_silent_child_is_killed_after_the_timeout() -> None:
    watchdog = Watchdog(10.0)
    child_end = watchdog.open(100.0)
    try:
        # It may take a minute until its first sign of life.
        assert watchdog.kill_reason(159.0) is None
        os.write(child_end, b".")
        assert watchdog.kill_reason(160.0) is None
        assert watchdog.kill_reason(170.0) is None
        assert watchdog.kill_reason(170.3) == "no sign of life for 10 s"
        # The kill takes a moment; it is not repeated with each tick.
        assert watchdog.kill_reason(170.6) is None
    finally:
        os.close(child_end)
        watchdog.close()


def test_a_pause_of_the_supervisor_is_not_the_childs_silence() -> None:
    watchdog = Watchdog(10.0)
    child_end = watchdog.open(100.0)
    try:
        os.write(child_end, b".")
        assert watchdog.kill_reason(101.0) is None
        watchdog.restart_timer(500.0)
        assert watchdog.kill_reason(509.0) is None
        assert watchdog.kill_reason(511.0) is not None
    finally:
        os.close(child_end)
        watchdog.close()


def test_a_child_that_never_starts_is_replaced() -> None:
    watchdog = Watchdog(10.0)
    child_end = watchdog.open(100.0)
    try:
        assert watchdog.kill_reason(161.0) == "no sign of life for 60 s"
    finally:
        os.close(child_end)
        watchdog.close()
    assert watchdog.kill_reason(900.0) is None


def test_an_adopted_child_is_watched_at_once() -> None:
    read_end, child_end = os.pipe()
    os.set_blocking(read_end, False)
    watchdog = Watchdog(10.0)
    watchdog.adopt(read_end, 100.0)
    try:
        assert watchdog.descriptor == read_end
        assert watchdog.kill_reason(109.0) is None
        assert watchdog.kill_reason(111.0) == "no sign of life for 10 s"
    finally:
        os.close(child_end)
        watchdog.close()
