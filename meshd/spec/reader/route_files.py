"""Replace the files in a route's filters by their content when settings are read: pages, users.

Called by `meshd.spec.reader.service` for Compose files and by `meshd.standalone.settings` for the
file of `meshd proxy`. A stored specification holds the pages and users themselves, so that it
needs no file later.
"""

from pathlib import Path

from meshd.spec.model import Mesh, RouteSpec
from meshd.spec.reader.filter_values import LARGEST_PAGE, check_users, is_page


class RouteFile(ValueError):
    """A file with a page or with users cannot be used; the text says why. `route` is the number of
    its route, `key` the setting."""

    def __init__(self, route: int, key: str, text: str) -> None:
        super().__init__(text)
        self.route = route
        self.key = key


def read_files(mesh: Mesh, folder: Path) -> Mesh:
    """Return the settings with all files read; they are relative to `folder`. Raises RouteFile."""
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
    users = route.basic_auth
    if users is not None and users.file:
        try:
            read = check_users(_read_users(number, users.file, folder))
        except ValueError as error:
            if isinstance(error, RouteFile):
                raise
            raise RouteFile(number, "basic_auth", f"{users.file}: {error}") from error
        changed["basic_auth"] = users.model_copy(update={"users": users.users + read, "file": ""})
    return route.model_copy(update=changed) if changed else route


def _read_users(route: int, name: str, folder: Path) -> tuple[str, ...]:
    """Return the users in a file of `htpasswd`; empty lines and comments do not count."""
    lines = [line.strip() for line in _read_text(route, "basic_auth", name, folder).splitlines()]
    users = tuple(line for line in lines if line and not line.startswith("#"))
    if not users:
        raise RouteFile(route, "basic_auth", f"{name} has no user")
    return users


def _read(route: int, key: str, name: str, folder: Path) -> str:
    """Return the page in a file."""
    text = _read_text(route, key, name, folder)
    if not is_page(text):
        raise RouteFile(
            route, key, f"{name} is not a page; expected HTML, which begins with <, or JSON with {{"
        )
    return text


def _read_text(route: int, key: str, name: str, folder: Path) -> str:
    path = folder / Path(name).expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_PAGE + 1)
        text = data.decode("utf-8-sig").lstrip()
    except OSError as error:
        raise RouteFile(route, key, f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RouteFile(route, key, f"{name} is not valid UTF-8") from error
    if len(data) > LARGEST_PAGE:
        raise RouteFile(route, key, f"{name} is larger than {LARGEST_PAGE // 1024} KiB")
    return text
