"""`x-mesh.scale` of a spec → settings of the autoscaler. Pure.

`meshd.scaling.controller` and `meshd simulate` use it.
"""

from typing import Final

from autoscaler import ScalingSettings
from meshd.model.desired import DesiredService
from meshd.spec.model import Scale

DEFAULT_SHARE: Final = 95.0
"""Percent of the requests within the latency objective, as `x-mesh.scale.objective` has it by
default."""


def settings_of(scale: Scale) -> ScalingSettings:
    """Return the policy's settings for a spec."""
    objective = scale.objective
    return ScalingSettings(
        min=scale.min,
        max=scale.max,
        latency=objective.latency if objective else None,
        share=objective.share if objective else DEFAULT_SHARE,
        concurrency=scale.concurrency,
        rps=scale.rps,
        cpu=scale.cpu,
        queue=scale.queue,
        external=scale.prometheus.per_replica if scale.prometheus else None,
        down_window=scale.down_window,
        calm=scale.calm,
        step_up=scale.step_up,
        step_down=scale.step_down,
        idle=scale.idle,
    )


def is_scaled(service: DesiredService) -> bool:
    """Return whether the autoscaler decides the number: there is a range, and an objective. With
    `min` 0 no objective is needed, because traffic alone decides between zero and one."""
    scale = service.spec.mesh.scale
    if scale is None or scale.max <= scale.min:
        return False
    return scale.min == 0 or scale.has_objectives
