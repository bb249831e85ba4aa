"""`python -m proxy.worker CONFIG`: the command by which the supervisor starts a worker."""

from proxy.worker.worker import main

if __name__ == "__main__":
    main()
