"""What a spec asks of the autoscaler. Pure."""

from autoscaler import ScalingSettings
from meshd.model.desired import DesiredService
from meshd.spec.model import Scale


def settings_of(scale: Scale) -> ScalingSettings:
    """The spec's words as the policy's settings."""
    objective = scale.objective
    return ScalingSettings(
        min=scale.min,
        max=scale.max,
        latency=objective.latency if objective else None,
        share=objective.share if objective else 95.0,
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
    """Whether the autoscaler has a say: there is room, and something to go by. With `min` 0
    that there is traffic at all is enough."""
    scale = service.spec.mesh.scale
    if scale is None or scale.max <= scale.min:
        return False
    return scale.min == 0 or scale.has_objectives
