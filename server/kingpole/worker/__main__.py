"""`python -m kingpole.worker --fd N`: the child process that the server starts."""

import argparse
import os
import signal
import socket
import sys

# Frameworks read these once, when they are imported.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(arguments: list[str] | None = None) -> int:
    """Serve batches from the inherited socket until the server says stop or goes away."""
    parser = argparse.ArgumentParser(prog="python -m kingpole.worker")
    parser.add_argument("--fd", type=int, required=True, help="inherited SOCK_SEQPACKET socket")
    parser.add_argument(
        "--load-fd", type=int, help="another one, on which models are loaded while batches run"
    )
    parsed = parser.parse_args(arguments)
    # Ctrl-C reaches the whole process group; the server decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threads = os.environ.get("KINGPOLE_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        for variable in _THREAD_VARIABLES:
            os.environ.setdefault(variable, threads)
    from kingpole.worker.serving import Worker

    loads = socket.socket(fileno=parsed.load_fd) if parsed.load_fd is not None else None
    with socket.socket(fileno=parsed.fd) as connection:
        return Worker(connection, loads).run()


if __name__ == "__main__":
    sys.exit(main())
