"""Entry point of the helper, which the supervisor starts: sockets and settings come to it by
environment variables."""

import asyncio
import json
import os
import socket
import sys

from meshd.logging_setup import set_up_logging
from meshd.spec.errors import SpecError
from meshd.standalone.build import ADMIN_VARIABLE, SETTINGS_VARIABLE
from meshd.standalone.helper import Helper
from meshd.standalone.settings import read_settings
from proxy.ipc.config import FEED_VARIABLE


async def _run() -> None:
    given = json.loads(os.environ[SETTINGS_VARIABLE])
    settings = read_settings(given["file"], given["flags"])
    feed = socket.socket(fileno=int(os.environ[FEED_VARIABLE]))
    number = os.environ.get(ADMIN_VARIABLE)
    admin = socket.socket(fileno=int(number)) if number else None
    await Helper(settings, given["file"], given["flags"], feed, admin).run()


def main() -> None:
    """Help until the supervisor is gone."""
    set_up_logging()
    try:
        asyncio.run(_run())
    except SpecError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
