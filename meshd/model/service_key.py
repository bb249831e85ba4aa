"""The key of a service, `PROJECT/SERVICE`. Pure.

Used by every part of the control plane that handles services of several projects, and in the
snapshot.
"""

ServiceKey = str
"""`PROJECT/SERVICE`. An alias, as keys are also stored, sent, and used as metric labels."""


def service_key(project: str, service: str) -> ServiceKey:
    """Return the key of a service."""
    return f"{project}/{service}"


def split_key(key: ServiceKey) -> tuple[str, str]:
    """Return project and service of a key."""
    project, _, service = key.partition("/")
    return project, service


def port_key(key: ServiceKey, port: int) -> str:
    """Return the name in the snapshot of a further port of a service: `PROJECT/SERVICE:PORT`."""
    return f"{key}:{port}"


def base_key(name: str) -> ServiceKey:
    """Return the key of the service that a name in the snapshot belongs to, without its port."""
    return name.partition(":")[0]
