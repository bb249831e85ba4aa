"""The filters of a route in a spec → those of the snapshot. Pure.

`meshd.publish.compile` calls it for each route.
"""

from meshd.spec import model
from meshd.spec.reader.filter_values import is_page
from proxy.wire import filters as wire


def compile_filters(spec: model.RouteSpec) -> wire.Filters | None:
    """Return the filters of a route; None if it has none."""
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


def _page(text: str) -> str:
    """Return a page; empty for the name of a file that was not read, as in a label."""
    return text if is_page(text) else ""
