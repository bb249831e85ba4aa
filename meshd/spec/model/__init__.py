"""The resolved spec: what should run, as plain frozen values after reading and checking.

Durations are seconds, sizes bytes; what stands under `x-mesh` may use the short forms of
`meshd.spec.reader.shorthand`. The models refuse unknown fields; `meshd.spec.compose` turns
their errors into ones that name file and line.

This package is what the rest of the project, and whoever writes specs in Python, imports from; its
modules are where the values are defined, by what they are about. Belongs here: fields, their
bounds, and what of them excludes what. Does not belong here: reading files, and what follows from
a value.
"""

from meshd.spec.model.base import Model, Percent
from meshd.spec.model.container import (
    Build,
    Healthcheck,
    Logging,
    Mount,
    Resources,
    RestartPolicy,
    Ulimit,
    UpdateConfig,
)
from meshd.spec.model.health import HealthCheck
from meshd.spec.model.mesh import JobSchedule, Mesh
from meshd.spec.model.project import Network, Project, Quota
from meshd.spec.model.rollout import CanaryAnalysisSettings, Hook, RolloutSettings
from meshd.spec.model.route import Fault, HeaderEdits, RateLimit, RouteSpec
from meshd.spec.model.scale import Objective, PrometheusQuery, Scale, ScalingSchedule
from meshd.spec.model.service import Service
from meshd.spec.model.traffic import Balance, EjectSpec, LimitsSpec, ParkingSpec, Retries, Timeouts

__all__ = [
    "Balance",
    "Build",
    "CanaryAnalysisSettings",
    "EjectSpec",
    "Fault",
    "HeaderEdits",
    "HealthCheck",
    "Healthcheck",
    "Hook",
    "JobSchedule",
    "LimitsSpec",
    "Logging",
    "Mesh",
    "Model",
    "Mount",
    "Network",
    "Objective",
    "ParkingSpec",
    "Percent",
    "Project",
    "PrometheusQuery",
    "Quota",
    "RateLimit",
    "Resources",
    "RestartPolicy",
    "Retries",
    "RolloutSettings",
    "RouteSpec",
    "Scale",
    "ScalingSchedule",
    "Service",
    "Timeouts",
    "Ulimit",
    "UpdateConfig",
]
