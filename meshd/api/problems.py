"""Errors of the API as problem details (RFC 9457). A middleware of `server`.

`ApiProblem` has the member `error` in addition: versions of the command line before these read it.
"""

from http import HTTPStatus
from typing import Final

import msgspec
import pydantic
import structlog
from aiohttp import web

from meshd.api.routes import BoundHandler
from meshd.model.base import Value
from meshd.model.errors import NotFound, Rejected, StoreWriteError
from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable

PROBLEM: Final = "application/problem+json"
_KEPT_HEADERS: Final = ("Allow", "WWW-Authenticate", "Retry-After")
"""Headers of an aiohttp exception that its response must have."""
_log: Final = structlog.stdlib.get_logger(__name__)


class ApiProblem(Value, frozen=True):
    """Why a request failed (RFC 9457).

    - `type`: always `about:blank`: the status says what kind of problem it is.
    - `title`: the name of the status; `detail`: the reason and what to do, for people.
    - `error`: the same as `detail`, for older clients.
    """

    type: str
    title: str
    status: int
    detail: str
    error: str


def problem_response(
    status: int, detail: str, headers: dict[str, str] | None = None
) -> web.Response:
    """Return the response for a problem."""
    problem = ApiProblem("about:blank", HTTPStatus(status).phrase, status, detail, detail)
    return web.Response(
        body=msgspec.json.encode(problem), status=status, content_type=PROBLEM, headers=headers
    )


def describe_error(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Return the status, the reason, and the headers of the response to an exception."""
    match error:
        case NotFound():
            return 404, str(error), {}
        case RuntimeUnavailable():
            return 503, f"the runtime does not answer: {error}", {}
        case Rejected() | RuntimeFailure():
            return 409, str(error), {}
        case StoreWriteError():
            return 507, str(error), {}
        case pydantic.ValidationError() | msgspec.MsgspecError():
            return 400, str(error), {}
        case web.HTTPException():
            kept = {name: error.headers[name] for name in _KEPT_HEADERS if name in error.headers}
            return error.status, error.text or error.reason, kept
    return 500, "internal error; the log of the daemon has the details", {}


@web.middleware
async def errors_as_problems(request: web.Request, handler: BoundHandler) -> web.StreamResponse:
    """Turn an exception of a handler into a problem with the matching status."""
    try:
        return await handler(request)
    except Exception as error:
        if isinstance(error, web.HTTPException) and error.status < 400:
            raise
        status, text, headers = describe_error(error)
        if status == 500:
            _log.exception("request failed", method=request.method, path=request.path)
        return problem_response(status, text, headers)
