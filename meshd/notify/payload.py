"""Messages as webhooks take them: generic JSON, and that of Slack. Pure.

`meshd.notify.webhook` sends them. `docs/notify.md` describes the JSON; its names are a contract.
"""

from typing import Any, Final, Literal

import msgspec

from meshd.notify.grouping import Message
from meshd.notify.topics import Alert

MAX_LINE: Final = 500
"""Characters of an alert in a chat: enough for a reason, too few for a stack trace."""
VERSION: Final = 1
"""Version of the JSON; a field that is added does not change it."""


def encode_message(message: Message, form: Literal["json", "slack"], sender: str) -> bytes:
    """Return the body of a request. `sender`: the name of the host."""
    return msgspec.json.encode(
        _slack(message, sender) if form == "slack" else _plain(message, sender)
    )


def _plain(message: Message, sender: str) -> dict[str, Any]:
    return {
        "version": VERSION,
        "sender": sender,
        "alerts": [
            {
                "topic": each.topic,
                "status": "firing" if each.firing else "resolved",
                "at": each.at,
                "project": each.project,
                "service": each.service,
                "replica": each.replica,
                "text": each.text,
            }
            for each in message.alerts
        ],
        "more": message.more,
    }


def _slack(message: Message, sender: str) -> dict[str, Any]:
    firing = sum(each.firing for each in message.alerts)
    title = f"meshd on {sender}: {_count(firing, 'problem')}"
    if firing < len(message.alerts):
        title += f", {len(message.alerts) - firing} resolved"
    lines = [f"*{_escape(title)}*", *(_line(each) for each in message.alerts)]
    if message.more:
        lines.append(f"and {message.more} more; see `meshd events`")
    return {"text": "\n".join(lines)}


def _line(alert: Alert) -> str:
    mark = ":red_circle:" if alert.firing else ":large_green_circle:"
    name = f"{alert.project}/{alert.service}" if alert.service else ""
    about = " ".join(filter(None, (alert.topic, name, alert.replica)))
    text = alert.text if len(alert.text) <= MAX_LINE else alert.text[:MAX_LINE] + "…"
    return f"{mark} *{_escape(about)}*: {_escape(text)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _escape(text: str) -> str:
    """Escape the three characters that Slack reads as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
