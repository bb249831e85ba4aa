"""The two forms of a message."""

import msgspec

from meshd.notify.grouping import Message
from meshd.notify.payload import MAX_LINE, encode_message
from meshd.notify.topics import Alert

DOWN = Alert("no-endpoint", "shop/web", True, 100.0, "no replica", "shop", "web")
NODE = Alert("node", "n1", False, 101.0, "node n1 answers again")


def test_json_has_all_fields() -> None:
    found = msgspec.json.decode(encode_message(Message((DOWN, NODE), 3), "json", "host-1"))
    assert found == {
        "version": 1,
        "sender": "host-1",
        "alerts": [
            {
                "topic": "no-endpoint",
                "status": "firing",
                "at": 100.0,
                "project": "shop",
                "service": "web",
                "replica": "",
                "text": "no replica",
            },
            {
                "topic": "node",
                "status": "resolved",
                "at": 101.0,
                "project": "",
                "service": "",
                "replica": "",
                "text": "node n1 answers again",
            },
        ],
        "more": 3,
    }


def test_slack_has_a_title_and_a_line_for_each() -> None:
    found = msgspec.json.decode(encode_message(Message((DOWN, NODE), 3), "slack", "host-1"))
    assert found["text"].splitlines() == [
        "*meshd on host-1: 1 problem, 1 resolved*",
        ":red_circle: *no-endpoint shop/web*: no replica",
        ":large_green_circle: *node*: node n1 answers again",
        "and 3 more; see `meshd events`",
    ]


def test_text_of_a_replica_is_not_markup_for_slack() -> None:
    alert = Alert(
        "crash-loop", "shop/a", True, 1.0, "<!channel> & " + "x" * 600, "shop", "a", "a-1"
    )
    text = msgspec.json.decode(encode_message(Message((alert,)), "slack", "h"))["text"]
    assert "&lt;!channel&gt; &amp; x" in text
    assert "<" not in text
    assert text.splitlines()[1].endswith("x…")
    assert len(text) < MAX_LINE + 100
