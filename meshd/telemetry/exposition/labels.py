"""The labels of a sample, as pairs and as text. Pure.

`meshd.telemetry.service_metrics` makes them once for a service; the encoders `text` and `protobuf`
take the form that they need.
"""

from typing import NamedTuple


class Labels(NamedTuple):
    """The labels of a sample. `text` is their text form, without braces."""

    pairs: tuple[tuple[str, str], ...]
    text: str

    def add(self, name: str, value: str) -> "Labels":
        """Return these labels and one more."""
        text = quote_label(name, value)
        pairs = (*self.pairs, (name, value))
        return Labels(pairs, f"{self.text},{text}" if self.text else text)


NO_LABELS = Labels((), "")


def quote_label(name: str, value: str) -> str:
    """Return one label with its quoted value."""
    quoted = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'{name}="{quoted}"'
