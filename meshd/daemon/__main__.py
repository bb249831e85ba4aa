"""`python -m meshd.daemon`: how the supervisor starts the control process."""

import sys

from meshd.daemon.main import main

if __name__ == "__main__":
    sys.exit(main())
