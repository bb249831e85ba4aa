"""The filters of a route in a spec → those of the snapshot. Pure.

`meshd.publish.compile` calls it for each route.
"""

from meshd.model.service_key import service_key
from meshd.spec import model
from meshd.spec.reader.filter_values import is_page
from proxy.wire import filters as wire


def compile_filters(spec: model.RouteSpec, project: str = "") -> wire.Filters | None:
    """Return the filters of a route of a project; None if it has none."""
    compiled = wire.Filters(
        maintenance=_maintenance(spec.maintenance) if spec.maintenance else None,
        error_pages=tuple(
            wire.ErrorPage(status, page)
            for status, page in sorted(spec.error_pages.items())
            if is_page(page)
        ),
        cors=_cors(spec.cors) if spec.cors else None,
        waiting_page=_waiting_page(spec.waiting_page) if spec.waiting_page else None,
        compression=_compression(spec.compress) if spec.compress else None,
        request_start=spec.request_start,
        basic_auth=_basic_auth(spec.basic_auth) if spec.basic_auth else None,
        forward_auth=_forward_auth(spec.forward_auth, project) if spec.forward_auth else None,
    )
    return compiled if compiled != wire.Filters() else None


def _maintenance(settings: model.MaintenanceSettings) -> wire.Maintenance:
    return wire.Maintenance(
        _page(settings.page), max(1, round(settings.retry_after)), settings.allow
    )


def _cors(settings: model.CorsSettings) -> wire.Cors:
    return wire.Cors(**{**vars(settings), "max_age": round(settings.max_age)})


def _waiting_page(settings: model.WaitingPageSettings) -> wire.WaitingPage:
    return wire.WaitingPage(settings.after, max(1, round(settings.refresh)), _page(settings.page))


def _compression(settings: model.CompressionSettings) -> wire.Compression:
    return wire.Compression(**vars(settings))


def _basic_auth(settings: model.BasicAuthSettings) -> wire.BasicAuth:
    """Without users, as when a file was not read, no request passes."""
    users = tuple(
        (name, digest) for name, _, digest in (each.partition(":") for each in settings.users)
    )
    return wire.BasicAuth(users, settings.realm)


def _forward_auth(settings: model.ForwardAuthSettings, project: str) -> wire.ForwardAuth:
    name = settings.service
    key = name if "/" in name or not project else service_key(project, name)
    return wire.ForwardAuth(key, settings.path, settings.timeout, settings.headers)


def _page(text: str) -> str:
    """Return a page; empty for the name of a file that was not read, as in a label."""
    return text if is_page(text) else ""
