"""The routes of the API: one table with the handler, role, types and parameters of each.

`server` mounts them with `bind`; `openapi` makes the description from the table.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from meshd.api.access import protect
from meshd.api.access_handlers import BEFORE_ID, ENTRIES, AccessHandlers
from meshd.api.dto import (
    DeployResult,
    Health,
    JobList,
    LiveUpdate,
    LogLine,
    NodeDrain,
    NodeStatus,
    PlanPreview,
    Rebalance,
    Recording,
    RestartOrder,
    ScaleOverride,
    ScaleResult,
    ServicePolicy,
    Status,
    VolumeName,
    VolumeStatus,
)
from meshd.api.handlers import (
    AT,
    DECISIONS,
    EVENTS,
    FLIGHTS,
    FOLLOW,
    PATH,
    PREVIOUS,
    REPLICA,
    SINCE,
    SINCE_ID,
    SLOWER,
    STATUS,
    STOP_REPLICAS,
    TAIL,
    TAKE_OVER,
    THEN,
    UNTIL,
    Handlers,
    RecordHandlers,
)
from meshd.api.job_handlers import BEFORE, FOLLOW_JOB, JOBS, JobHandlers
from meshd.api.node_handlers import DRY_RUN, LEAVE_VOLUMES, SECONDS, TOKEN_SECONDS, NodeHandlers
from meshd.api.openapi import DescriptionHandlers
from meshd.api.page_handlers import FOLLOWED, LATENCIES, SPARKLINES, PageHandlers
from meshd.api.port import Control
from meshd.api.responses import PAGE
from meshd.api.rollout_handlers import RELEASES, TO, RolloutHandlers
from meshd.api.routes import METRICS, SHUTDOWN, TAR, ApiRoute, BoundHandler
from meshd.api.silence_handlers import SilenceHandlers
from meshd.api.volume_handlers import FORCE, LIVE, VolumeHandlers
from meshd.model.access import (
    AuditEntry,
    CreatedToken,
    CurrentCaller,
    NewSignInLink,
    NewToken,
    Role,
    SignInLink,
    Token,
)
from meshd.model.certificate import CertificateStatus
from meshd.model.event import Event
from meshd.model.history import HistoryPoint, LatencyMap, MeshThen, Sparkline
from meshd.model.job import Job, JobLine, JobOrder
from meshd.model.node_proxy import NewJoinToken
from meshd.model.release import Release
from meshd.model.scaling import ScaleDecision, Sizing
from meshd.model.silence import NewSilence, Silence
from meshd.spec.model import Project
from proxy.observe.flight import Flight, RecordInfo
from proxy.observe.tap import TapLine

_PROJECT: Final = "/v1/projects/{project}"
_SERVICE: Final = _PROJECT + "/services/{service}"
_VOLUME: Final = "/v1/volumes/{volume}"
_VIEW, _OPERATE, _ADMIN = Role.VIEW, Role.OPERATE, Role.ADMIN

PUBLIC_ROUTES: Final = (
    ApiRoute(
        "GET", "/metrics", Handlers.metrics, _VIEW, "All metrics for Prometheus.", media=METRICS,
    ),
    ApiRoute(
        "GET", "/healthz", Handlers.healthz, _VIEW, "Whether the daemon runs.",
        Health, filtered=True,
    ),
    ApiRoute(
        "GET", "/status", Handlers.status, _VIEW, "The same as /v1/status.",
        Status, filtered=True,
    ),
)  # fmt: skip
"""Routes of the address of `--metrics`, for everyone; they read only."""

CONTROL_ROUTES: Final = (
    *PUBLIC_ROUTES,
    ApiRoute(
        "GET", "/v1/status", Handlers.status, _VIEW, "The current state of everything.",
        Status, filtered=True,
    ),
    ApiRoute(
        "GET", "/v1/events", Handlers.events, _VIEW,
        "Events, oldest first; with `Accept: text/event-stream` as server-sent events.",
        list[Event], query=(SINCE_ID, EVENTS, FOLLOW), streams=Event, paged=True, filtered=True,
    ),
    ApiRoute(
        "GET", "/v1/sizes", Handlers.sizes, _VIEW,
        "What replicas used in the last week, and the proposed limits.",
        list[Sizing], query=PAGE, paged=True, filtered=True,
    ),
    ApiRoute(
        "GET", "/v1/certificates", Handlers.certificates, _VIEW,
        "TLS certificates that the proxy serves, and those that are wanted.",
        list[CertificateStatus],
    ),
    ApiRoute(
        "POST", "/v1/certificates/{name}/retry", Handlers.retry_certificate, _OPERATE,
        "Try at once to get a certificate after a failure.", status=204,
    ),
    ApiRoute(
        "PUT", _PROJECT, Handlers.deploy, _ADMIN,
        "Make a project the desired state; images are pulled and built first.",
        DeployResult, 202, (TAKE_OVER,), Project,
    ),
    ApiRoute(
        "GET", _PROJECT, Handlers.progress, _VIEW,
        "Progress of the latest deployment.", DeployResult,
    ),
    ApiRoute(
        "DELETE", _PROJECT, Handlers.down, _ADMIN,
        "Drain and stop every replica of a project, then forget it.", status=204,
    ),
    ApiRoute(
        "POST", _PROJECT + "/plan", Handlers.plan, _OPERATE,
        "What a deployment would do; changes nothing.", PlanPreview, body=Project,
    ),
    ApiRoute(
        "GET", _PROJECT + "/policy", Handlers.policies, _VIEW,
        "For each service, who may call it and who did.",
        list[ServicePolicy], query=PAGE, paged=True,
    ),
    ApiRoute(
        "PUT", _SERVICE + "/scale", Handlers.scale, _OPERATE,
        "Set the number of replicas by hand, or return it to the autoscaler.",
        ScaleResult, body=ScaleOverride,
    ),
    ApiRoute(
        "POST", _SERVICE + "/restart", Handlers.restart, _OPERATE,
        "Replace all replicas by others of the same revision.", RestartOrder, 202,
    ),
    ApiRoute(
        "GET", _SERVICE + "/logs", Handlers.logs, _VIEW,
        "Lines of the replicas, oldest first within a replica.",
        list[LogLine], query=(TAIL, SINCE, UNTIL, REPLICA, PREVIOUS, FOLLOW), streams=LogLine,
    ),
    ApiRoute(
        "GET", _SERVICE + "/decisions", Handlers.decisions, _VIEW,
        "Decisions of the autoscaler, newest first.",
        list[ScaleDecision], query=(AT, DECISIONS),
    ),
    ApiRoute(
        "GET", "/v1/history", Handlers.history_at, _VIEW,
        "All services at a time in the last 24 hours.", MeshThen, query=(THEN,), filtered=True,
    ),
    ApiRoute(
        "GET", _SERVICE + "/history", Handlers.history, _VIEW,
        "The past of a service, oldest first, in the finest step that reaches back that far.",
        list[HistoryPoint], query=(SINCE, UNTIL),
    ),
    ApiRoute(
        "GET", _SERVICE + "/traffic", Handlers.traffic, _VIEW,
        "Recorded traffic for the simulator.", Recording, query=(SINCE,),
    ),
    ApiRoute(
        "POST", "/v1/replicas/{replica}/drain", Handlers.drain, _OPERATE,
        "Take a replica out of rotation and replace it.", status=204,
    ),
    ApiRoute(
        "POST", SHUTDOWN, Handlers.shutdown, _ADMIN,
        "End the daemon in order.", status=202, query=(STOP_REPLICAS,),
    ),
)  # fmt: skip

JOB_ROUTES: Final = (
    ApiRoute(
        "POST", _SERVICE + "/jobs", JobHandlers.begin, _OPERATE,
        "Run a command once in a container of the service.", Job, 202, body=JobOrder,
    ),
    ApiRoute(
        "GET", "/v1/jobs", JobHandlers.list_jobs, _VIEW,
        "Jobs, newest first, and schedules.",
        JobList, query=(JOBS, BEFORE), paged=True, filtered=True,
    ),
    ApiRoute("GET", "/v1/jobs/{job}", JobHandlers.job, _VIEW, "State of a job.", Job),
    ApiRoute("DELETE", "/v1/jobs/{job}", JobHandlers.stop, _OPERATE, "Stop a job.", Job, 202),
    ApiRoute(
        "GET", "/v1/jobs/{job}/logs", JobHandlers.lines, _VIEW,
        "Last lines of a job that has ended.",
        list[JobLine], query=(FOLLOW_JOB,), streams=JobLine,
    ),
)  # fmt: skip

VOLUME_ROUTES: Final = (
    ApiRoute(
        "GET", "/v1/volumes", VolumeHandlers.all, _VIEW,
        "Named volumes and the services that mount them.",
        list[VolumeStatus], query=PAGE, paged=True,
    ),
    ApiRoute(
        "GET", _VOLUME + "/archive", VolumeHandlers.read, _ADMIN,
        "Content of a volume; the services with it are stopped or quiesced meanwhile.",
        query=(LIVE,), media=TAR,
    ),
    ApiRoute(
        "PUT", _VOLUME + "/archive", VolumeHandlers.restore, _ADMIN,
        "Replace the content of a volume.", status=204, query=(FORCE,), body=bytes,
        body_media=TAR,
    ),
    ApiRoute(
        "POST", _VOLUME + "/check-restore", VolumeHandlers.check_restore, _ADMIN,
        "Whether a restore may begin; changes nothing.", VolumeName, query=(FORCE,),
    ),
    ApiRoute(
        "DELETE", _VOLUME, VolumeHandlers.remove, _ADMIN,
        "Delete a volume that no service mounts.", status=204,
    ),
)  # fmt: skip

NODE_ROUTES: Final = (
    ApiRoute(
        "GET", "/v1/nodes", NodeHandlers.all, _VIEW,
        "Nodes of the runtime, with their state and what is reserved on them.",
        list[NodeStatus], query=PAGE, paged=True,
    ),
    ApiRoute(
        "POST", "/v1/nodes/{node}/drain", NodeHandlers.drain, _OPERATE,
        "Move the replicas of a node to others, then end the rest of its tasks.",
        NodeDrain, 202, (SECONDS, LEAVE_VOLUMES, DRY_RUN),
    ),
    ApiRoute(
        "POST", "/v1/nodes/{node}/cordon", NodeHandlers.cordon, _OPERATE,
        "Place no new replicas on a node.", status=204,
    ),
    ApiRoute(
        "POST", "/v1/nodes/{node}/uncordon", NodeHandlers.uncordon, _OPERATE,
        "Place replicas on a node again; ends its drain.", status=204,
    ),
    ApiRoute(
        "POST", "/v1/join-tokens", NodeHandlers.make_token, _ADMIN,
        "A token with which the proxy of one node may join.",
        NewJoinToken, 201, (TOKEN_SECONDS,),
    ),
    ApiRoute(
        "DELETE", "/v1/nodes/{node}/proxy", NodeHandlers.remove_proxy, _ADMIN,
        "Refuse the proxy of a node from now on.", status=204,
    ),
    ApiRoute(
        "POST", "/v1/rebalance", NodeHandlers.rebalance, _OPERATE,
        "Spread each service evenly over the nodes, one replica at a time.",
        Rebalance, 202, (DRY_RUN,),
    ),
)  # fmt: skip

RECORD_ROUTES: Final = (
    ApiRoute(
        "GET", "/v1/records", RecordHandlers.list, _VIEW,
        "Records of the flight recorder, newest first.",
        list[RecordInfo], query=PAGE, paged=True, filtered=True,
    ),
    ApiRoute(
        "POST", "/v1/records", RecordHandlers.save, _OPERATE,
        "Save the last requests of all services.", RecordInfo, 202,
    ),
    ApiRoute(
        "POST", _SERVICE + "/records", RecordHandlers.save_service, _OPERATE,
        "Save the last requests of a service.", RecordInfo, 202,
    ),
    ApiRoute(
        "GET", "/v1/records/{record}", RecordHandlers.show, _VIEW,
        "The newest requests of a record, oldest first.",
        list[Flight], query=(PATH, STATUS, SLOWER, FLIGHTS), filtered=True,
    ),
    ApiRoute(
        "GET", "/v1/tap", RecordHandlers.tap, _VIEW,
        "Live requests as they end; without `follow` those of the next second.",
        list[TapLine], query=(PATH, STATUS, SLOWER, FOLLOW), streams=TapLine, filtered=True,
    ),
    ApiRoute(
        "GET", _SERVICE + "/tap", RecordHandlers.tap_service, _VIEW,
        "Live requests of a service; without `follow` those of the next second.",
        list[TapLine], query=(PATH, STATUS, SLOWER, FOLLOW), streams=TapLine,
    ),
)  # fmt: skip

ROLLOUT_ROUTES: Final = (
    ApiRoute(
        "GET", _SERVICE + "/releases", RolloutHandlers.releases, _VIEW,
        "Releases of a service, newest first.", list[Release], query=(RELEASES,),
    ),
    ApiRoute(
        "POST", _SERVICE + "/undo", RolloutHandlers.undo, _OPERATE,
        "Go back to an earlier release.", Release, 202, (TO,),
    ),
    ApiRoute(
        "POST", _SERVICE + "/pause", RolloutHandlers.pause, _OPERATE,
        "Stop the rollout where it is.", status=204,
    ),
    ApiRoute(
        "POST", _SERVICE + "/resume", RolloutHandlers.resume, _OPERATE,
        "Continue a paused rollout.", status=204,
    ),
)  # fmt: skip

ACCESS_ROUTES: Final = (
    ApiRoute(
        "GET", "/v1/caller", AccessHandlers.current, _VIEW,
        "Who the daemon takes the caller for.", CurrentCaller, filtered=True,
    ),
    ApiRoute(
        "GET", "/v1/tokens", AccessHandlers.tokens, _ADMIN,
        "All tokens, without their secrets.", list[Token], query=PAGE, paged=True,
    ),
    ApiRoute(
        "POST", "/v1/tokens", AccessHandlers.create, _ADMIN,
        "Create a token; its secret is in this response only.", CreatedToken, 201, body=NewToken,
    ),
    ApiRoute(
        "DELETE", "/v1/tokens/{token}", AccessHandlers.revoke, _ADMIN,
        "Revoke a token.", status=204,
    ),
    ApiRoute(
        "GET", "/v1/audit", AccessHandlers.audit, _ADMIN,
        "Who changed what, newest first.", list[AuditEntry], query=(BEFORE_ID, ENTRIES),
        paged=True,
    ),
)  # fmt: skip

PAGE_ROUTES: Final = (
    ApiRoute(
        "GET", "/v1/live", PageHandlers.live, _VIEW,
        "The current state for the web page, then what changes, every second.",
        LiveUpdate, query=FOLLOWED, streams=LiveUpdate, filtered=True,
    ),
    ApiRoute(
        "GET", "/v1/sparklines", PageHandlers.sparklines, _VIEW,
        "The past of all services in steps of ten seconds, at most two hours.",
        list[Sparkline], query=SPARKLINES, filtered=True,
    ),
    ApiRoute(
        "GET", _SERVICE + "/latencies", PageHandlers.latencies, _VIEW,
        "How many answers of a service took how long, at most in the last hour.",
        LatencyMap, query=LATENCIES,
    ),
    ApiRoute(
        "POST", "/v1/sign-in-links", PageHandlers.create_link, _OPERATE,
        "Create a link that signs in to the web page once.",
        SignInLink, 201, body=NewSignInLink, filtered=True,
    ),
)  # fmt: skip

SILENCE_ROUTES: Final = (
    ApiRoute(
        "GET", "/v1/silences", SilenceHandlers.silences, _VIEW,
        "Problems that are not sent to webhooks for a while.", list[Silence], filtered=True,
    ),
    ApiRoute(
        "POST", "/v1/silences", SilenceHandlers.create, _OPERATE,
        "Silence problems for a while.", Silence, 201, body=NewSilence, filtered=True,
    ),
    ApiRoute(
        "DELETE", "/v1/silences/{silence}", SilenceHandlers.remove, _OPERATE,
        "End a silence.", status=204, filtered=True,
    ),
)  # fmt: skip

DESCRIPTION_ROUTES: Final = (
    ApiRoute(
        "GET", "/openapi.json", DescriptionHandlers.description, _VIEW,
        "This description, in OpenAPI 3.1.", dict[str, Any], filtered=True,
    ),
)  # fmt: skip

ROUTES: Final = (
    *CONTROL_ROUTES,
    *JOB_ROUTES,
    *VOLUME_ROUTES,
    *NODE_ROUTES,
    *RECORD_ROUTES,
    *ROLLOUT_ROUTES,
    *ACCESS_ROUTES,
    *PAGE_ROUTES,
    *SILENCE_ROUTES,
    *DESCRIPTION_ROUTES,
)
"""All routes."""


def bind(control: Control) -> Sequence[tuple[ApiRoute, BoundHandler]]:
    """Return all routes with their handlers for `control`, protected."""
    handlers = (
        (CONTROL_ROUTES, Handlers(control)),
        (JOB_ROUTES, JobHandlers(control.job_control)),
        (VOLUME_ROUTES, VolumeHandlers(control.volume_control)),
        (NODE_ROUTES, NodeHandlers(control.node_control)),
        (RECORD_ROUTES, RecordHandlers(control.record_control)),
        (ROLLOUT_ROUTES, RolloutHandlers(control.rollout_control)),
        (ACCESS_ROUTES, AccessHandlers(control.access_control)),
        (PAGE_ROUTES, PageHandlers(control)),
        (SILENCE_ROUTES, SilenceHandlers(control.silence_control)),
        (DESCRIPTION_ROUTES, DescriptionHandlers(ROUTES)),
    )
    return [
        (route, protect(route, partial(route.handler, bound), control))
        for routes, bound in handlers
        for route in routes
    ]
