"""Entry point of the helper process, `python -m meshd.standalone`.

Started by the proxy's supervisor, and implemented in `meshd.standalone.helper`. It gets its sockets
and settings through environment variables.
"""

import asyncio
import json
import os
import socket
import sys

from meshd.logging_setup import set_up_logging
from meshd.spec.errors import SpecError
from meshd.standalone.build import ADMIN_VARIABLE, SETTINGS_VARIABLE
from meshd.standalone.helper import Helper
from proxy.ipc.config import FEED_VARIABLE
from proxy.ipc.signals import hold_late_signals


async def _run() -> None:
    arguments = json.loads(os.environ[SETTINGS_VARIABLE])
    file, flags = arguments["file"], arguments["flags"]
    feed = socket.socket(fileno=int(os.environ[FEED_VARIABLE]))
    admin_fd = os.environ.get(ADMIN_VARIABLE)
    admin = socket.socket(fileno=int(admin_fd)) if admin_fd else None
    memory = arguments.get("memory", -1)
    await Helper(file, flags, feed, admin, memory).run()


def main() -> None:
    """Run the helper until the supervisor ends."""
    set_up_logging()
    try:
        asyncio.run(hold_late_signals(_run()))
    except SpecError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
