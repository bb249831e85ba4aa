"""Wanted redirects of ports are applied, repeated, and removed."""

from collections.abc import Collection

from meshd.model.runtime import PortRedirect, PortRedirects
from meshd.reconcile.execute.port_redirects import REPEAT, PortRedirectWriter
from meshd.runtime.base import RuntimeUnavailable
from tests.fakes import virtual

WEB = PortRedirect("0.0.0.0", 8080, 15900)


def test_redirects_are_applied_and_repeated_while_there_are_any() -> None:
    calls: list[frozenset[PortRedirect]] = []
    wakes: list[int] = []

    async def redirect(wanted: Collection[PortRedirect]) -> PortRedirects:
        calls.append(frozenset(wanted))
        return PortRedirects(frozenset(wanted), settled=len(calls) != 5)

    async def scene() -> None:
        writer = PortRedirectWriter(redirect, lambda: wakes.append(1))
        writer.set_wanted(frozenset())
        await virtual.elapse(0.1)
        assert calls == [frozenset()], "an earlier process may have left some"
        writer.set_wanted(frozenset())
        await virtual.elapse(1)
        assert len(calls) == 1
        writer.set_wanted(frozenset([WEB]))
        await virtual.elapse(0.1)
        assert (writer.asked, writer.applied) == ({WEB}, {WEB})
        assert len(wakes) == 2
        await virtual.elapse(2 * REPEAT)
        assert calls[1:] == [frozenset([WEB])] * 3
        assert len(wakes) == 2, "nothing changed"
        writer.set_wanted(frozenset())
        await virtual.elapse(3 * REPEAT)
        assert (len(calls), writer.applied) == (6, frozenset()), "until nothing is left"
        await writer.close()

    virtual.run(scene())


def test_a_runtime_that_does_not_answer_applies_none() -> None:
    async def redirect(wanted: Collection[PortRedirect]) -> PortRedirects:
        raise RuntimeUnavailable("the engine does not answer")

    async def scene() -> None:
        writer = PortRedirectWriter(redirect, lambda: None)
        writer.set_wanted(frozenset([WEB]))
        await virtual.elapse(0.1)
        assert (writer.asked, writer.applied) == ({WEB}, frozenset())
        await writer.close()

    virtual.run(scene())
