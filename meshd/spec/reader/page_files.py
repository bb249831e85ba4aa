"""Replace the files of pages in a route's filters by their content when settings are read.

Called by `meshd.spec.reader.service` for Compose files and by `meshd.standalone.settings` for the
file of `meshd proxy`. A stored specification holds the pages themselves, so that it needs no file
later.
"""

from pathlib import Path

from meshd.spec.model import Mesh, RouteSpec
from meshd.spec.reader.filter_values import LARGEST_PAGE, is_page


class PageFile(ValueError):
    """A file with a page cannot be used; the text says why. `route` is the number of its route,
    `key` the setting."""

    def __init__(self, route: int, key: str, text: str) -> None:
        super().__init__(text)
        self.route = route
        self.key = key


def read_pages(mesh: Mesh, folder: Path) -> Mesh:
    """Return the settings with all pages read; files are relative to `folder`. Raises PageFile."""
    routes = tuple(_read_route(number, each, folder) for number, each in enumerate(mesh.routes))
    return mesh if routes == mesh.routes else mesh.model_copy(update={"routes": routes})


def _read_route(number: int, route: RouteSpec, folder: Path) -> RouteSpec:
    changed: dict[str, object] = {}
    for key in ("maintenance", "waiting_page"):
        settings = getattr(route, key)
        if settings is not None and settings.page and not is_page(settings.page):
            page = _read(number, key, settings.page, folder)
            changed[key] = settings.model_copy(update={"page": page})
    if not all(map(is_page, route.error_pages.values())):
        changed["error_pages"] = {
            status: each if is_page(each) else _read(number, "error_pages", each, folder)
            for status, each in route.error_pages.items()
        }
    return route.model_copy(update=changed) if changed else route


def _read(route: int, key: str, name: str, folder: Path) -> str:
    path = folder / Path(name).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_PAGE + 1)
        text = data.decode("utf-8-sig").lstrip()
    except OSError as error:
        raise PageFile(route, key, f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PageFile(route, key, f"{name} is not valid UTF-8") from error
    if len(data) > LARGEST_PAGE:
        raise PageFile(route, key, f"{name} is larger than {LARGEST_PAGE // 1024} KiB")
    if not is_page(text):
        raise PageFile(
            route, key, f"{name} is not a page; expected HTML, which begins with <, or JSON with {{"
        )
    return text
