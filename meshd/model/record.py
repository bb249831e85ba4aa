"""Records of the flight recorder. Pure.

`meshd.store.flight_records` keeps them; the API and `meshd record` show them. The requests in a
record are values of `proxy.observe.flight`.
"""

from meshd.model.base import RequestBody, Value


class RecordInfo(Value, frozen=True):
    """One saved record.

    - `at`: Unix time at which it was saved.
    - `service`: key of the service whose requests it has; empty for all.
    - `reason`: who or what asked for it.
    - `workers`, `bytes`: number and size of the files of the proxy workers.
    """

    id: str
    at: float
    service: str = ""
    reason: str = ""
    workers: int = 0
    bytes: int = 0


class NewRecord(RequestBody, frozen=True):
    """What to save: the key of a service; empty for all."""

    service: str = ""
