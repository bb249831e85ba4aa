"""Parts of Grafana dashboards: panels, rows and the layout, as the JSON that Grafana imports.

`boards` describes the dashboards with them; `generate` writes the files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SOURCE: Final = {"type": "prometheus", "uid": "meshd-prometheus"}
WIDTH: Final = 24
"""Columns of a dashboard, by Grafana's grid."""
STAT_HEIGHT: Final = 4
"""Rows of the grid that one number takes."""
HEIGHT: Final = 8
"""Rows of the grid that a graph takes."""
RATE: Final = "$__rate_interval"
RED: Final = "red"
GREEN: Final = "green"


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the legend of its series."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """A panel without a place.

    - `width`: columns of the grid.
    - `unit`: as Grafana names it.
    - `alarm`: from this value on a number is red; a negative one: below its absolute value.
    - `steps`: draw steps instead of slopes.
    - `stacked`: draw the series on top of each other.
    """

    kind: str
    title: str
    text: str
    queries: tuple[Query, ...]
    width: int
    unit: str = "short"
    alarm: float | None = None
    steps: bool = False
    stacked: bool = False

    @property
    def height(self) -> int:
        return STAT_HEIGHT if self.kind == "stat" else HEIGHT

    def render(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Return the panel at a place of the grid."""
        defaults: dict[str, Any] = {"unit": self.unit, "min": 0}
        options: dict[str, Any]
        if self.kind == "stat":
            options = {
                "reduceOptions": {"calcs": ["lastNotNull"]},
                "colorMode": "value",
                "graphMode": "none",
            }
            if self.alarm is not None:
                below, above = (GREEN, RED) if self.alarm > 0 else (RED, GREEN)
                steps = [
                    {"color": below, "value": None},
                    {"color": above, "value": abs(self.alarm)},
                ]
                defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        elif self.kind == "heatmap":
            options = {"calculate": False, "yAxis": {"unit": self.unit}, "cellGap": 1}
        else:
            defaults["custom"] = {
                "fillOpacity": 10,
                "showPoints": "never",
                "lineInterpolation": "stepAfter" if self.steps else "linear",
            }
            if self.stacked:
                defaults["custom"]["stacking"] = {"mode": "normal"}
            options = {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.text,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "targets": [self._target(place, query) for place, query in enumerate(self.queries)],
            "options": options,
        }

    def _target(self, place: int, query: Query) -> dict[str, Any]:
        found = {
            "refId": chr(ord("A") + place),
            "datasource": SOURCE,
            "expr": query.expression,
            "legendFormat": query.legend,
            "range": self.kind != "stat",
            "instant": self.kind == "stat",
        }
        if self.kind == "heatmap":
            found["format"] = "heatmap"
        if self.unit == "s" and "_bucket" in query.expression:
            found["exemplar"] = True
        return found


def stat(
    title: str, text: str, expression: str, unit: str = "short", alarm: float | None = None
) -> Panel:
    """Return a panel with one number."""
    return Panel("stat", title, text, (Query(expression),), 4, unit, alarm)


def graph(
    title: str,
    text: str,
    *queries: tuple[str, str],
    unit: str = "short",
    width: int = 8,
    steps: bool = False,
    stacked: bool = False,
) -> Panel:
    """Return a graph over time; each query is an expression and a legend."""
    found = tuple(Query(*query) for query in queries)
    return Panel("timeseries", title, text, found, width, unit, steps=steps, stacked=stacked)


def heatmap(title: str, text: str, expression: str, unit: str = "s", width: int = 16) -> Panel:
    """Return a heat map of the buckets of a histogram."""
    return Panel("heatmap", title, text, (Query(expression, "{{le}}"),), width, unit)


@dataclass(frozen=True)
class Dashboard:
    """A dashboard: rows of panels, each with a title; an empty one has no header.

    `services`: whether its panels are of the services that the user chooses, and `many` whether
    that may be several.
    """

    uid: str
    title: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    services: bool = True
    many: bool = True
    annotations: Sequence[dict[str, Any]] = field(default_factory=tuple)

    def render(self) -> dict[str, Any]:
        """Return the JSON that Grafana imports."""
        return {
            "uid": self.uid,
            "title": f"meshd / {self.title}",
            "tags": ["meshd"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "refresh": "5s",
            "time": {"from": "now-15m", "to": "now"},
            "timezone": "browser",
            "links": [
                {"type": "dashboards", "title": "meshd", "tags": ["meshd"], "keepTime": True}
            ],
            "templating": {"list": [self._variable()] if self.services else []},
            "annotations": {"list": list(self.annotations)},
            "panels": self._place(),
        }

    def _variable(self) -> dict[str, Any]:
        query = "label_values(meshd_replicas, service)"
        found: dict[str, Any] = {
            "name": "service",
            "label": "Service",
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": "services"},
            "definition": query,
            "refresh": 2,
            "multi": self.many,
            "includeAll": self.many,
            "sort": 1,
        }
        if self.many:
            found["allValue"] = ".*"
            found["current"] = {"text": "All", "value": "$__all"}
        return found

    def _place(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        y = 0
        for title, panels in self.rows:
            if title:
                place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
                row = {"id": len(found) + 1, "type": "row", "title": title, "panels": []}
                found.append({**row, "collapsed": False, "gridPos": place})
                y += 1
            x = tallest = 0
            for panel in panels:
                if x + panel.width > WIDTH:
                    x, y, tallest = 0, y + tallest, 0
                found.append(panel.render(len(found) + 1, x, y))
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest
        return found
