"""The key of a service, used wherever services of several projects meet. Pure."""

ServiceKey = str
"""`PROJECT/SERVICE`. An alias, as keys are also stored, sent, and used as metric labels."""


def service_key(project: str, service: str) -> ServiceKey:
    """Return the key of a service."""
    return f"{project}/{service}"


def split_key(key: ServiceKey) -> tuple[str, str]:
    """Return project and service of a key."""
    project, _, service = key.partition("/")
    return project, service
