"""The spec: what to run, as frozen pydantic models, after reading and checking.

The rest of meshd, and anyone who builds specs in Python, imports the models from here.
`meshd.spec.compose` builds them from Compose files, and turns their errors into errors with a file
and line. Durations are seconds and sizes are bytes. Fields under `x-mesh` also accept the short
forms of `meshd.spec.reader.shorthand`. Unknown fields are errors.

Belongs here: fields, their bounds, and which fields exclude each other. Does not belong here:
reading files, and anything derived from a value.
"""

from meshd.spec.model.base import Model, Percent
from meshd.spec.model.container import (
    BlockDevice,
    BlockIo,
    Build,
    ContainerHook,
    DeviceRequest,
    EngineOptions,
    Healthcheck,
    InitContainer,
    Logging,
    Mount,
    PublishedPort,
    Resources,
    RestartPolicy,
    Ulimit,
    UpdateConfig,
    UpdateOrder,
)
from meshd.spec.model.health import HealthCheck
from meshd.spec.model.mesh import DrainSettings, JobSchedule, Mesh
from meshd.spec.model.network import AddressPool, Attachment, Network
from meshd.spec.model.placement import PlacementSettings
from meshd.spec.model.project import BackupHooks, Project, Quota
from meshd.spec.model.rollout import CanaryAnalysisSettings, Hook, RolloutSettings
from meshd.spec.model.route import Fault, HeaderEdits, RateLimit, ResponseHeaderEdits, RouteSpec
from meshd.spec.model.route_filters import (
    BasicAuthSettings,
    CompressionSettings,
    CorsSettings,
    ForwardAuthSettings,
    MaintenanceSettings,
    WaitingPageSettings,
)
from meshd.spec.model.scale import Objective, PrometheusQuery, Scale, ScalingSchedule
from meshd.spec.model.service import Service
from meshd.spec.model.tcp_port import PortPolicies, TcpPortSpec
from meshd.spec.model.traffic import Balance, EjectSpec, LimitsSpec, ParkingSpec, Retries, Timeouts
from meshd.spec.model.upstream import UpstreamSpec, UpstreamTlsSpec

__all__ = [
    "AddressPool",
    "Attachment",
    "BackupHooks",
    "Balance",
    "BasicAuthSettings",
    "BlockDevice",
    "BlockIo",
    "Build",
    "CanaryAnalysisSettings",
    "CompressionSettings",
    "ContainerHook",
    "CorsSettings",
    "DeviceRequest",
    "DrainSettings",
    "EjectSpec",
    "EngineOptions",
    "Fault",
    "ForwardAuthSettings",
    "HeaderEdits",
    "HealthCheck",
    "Healthcheck",
    "Hook",
    "InitContainer",
    "JobSchedule",
    "LimitsSpec",
    "Logging",
    "MaintenanceSettings",
    "Mesh",
    "Model",
    "Mount",
    "Network",
    "Objective",
    "ParkingSpec",
    "Percent",
    "PlacementSettings",
    "PortPolicies",
    "Project",
    "PrometheusQuery",
    "PublishedPort",
    "Quota",
    "RateLimit",
    "Resources",
    "ResponseHeaderEdits",
    "RestartPolicy",
    "Retries",
    "RolloutSettings",
    "RouteSpec",
    "Scale",
    "ScalingSchedule",
    "Service",
    "TcpPortSpec",
    "Timeouts",
    "Ulimit",
    "UpdateConfig",
    "UpdateOrder",
    "UpstreamSpec",
    "UpstreamTlsSpec",
    "WaitingPageSettings",
]
