"""The command line. Each command imports what it needs when it is run, so that `--version` is quick.

Exit codes: 0 success; 1 the command failed or the answer was no; 2 wrong usage or
configuration; 3 the server could not start; 130 ended at once by a second Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kingpole import __version__

SUCCESS, FAILURE, USAGE, NOT_STARTED, INTERRUPTED = 0, 1, 2, 3, 130

_EPILOG = """exit codes:
  0    success
  1    the command failed, or the answer was no
  2    wrong usage or configuration
  3    the server could not start
  130  ended at once by a second Ctrl-C"""


class CommandError(Exception):
    """A failure to be told in one line, with its exit code."""

    def __init__(self, message: str, exit_code: int = FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser(serves="serve" in given)
    parsed = parser.parse_args(given)
    try:
        exit_code: int = parsed.run(parsed)
        return exit_code
    except CommandError as error:
        print(f"kingpole: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has enough of it.
        sys.stderr.close()
        return FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser(serves: bool) -> argparse.ArgumentParser:
    """Make the parser; what `serve` takes is only looked up where `serve` is among the arguments."""
    parser = argparse.ArgumentParser(
        prog="kingpole",
        description="One small server, many models, many protocols.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kingpole {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve", help="serve models", description="Serve models, repositories or both."
    )
    if serves:
        from kingpole.cli.settings import add_serve_arguments

        add_serve_arguments(serve)
    serve.set_defaults(run=_serve)

    inspect = commands.add_parser("inspect", help="show what would be served from a path, and why")
    inspect.add_argument("path", metavar="PATH")
    inspect.add_argument("--write", action="store_true", help="write what was inferred to model.yaml")
    inspect.set_defaults(run=_inspect)

    infer = commands.add_parser("infer", help="send one request and print the outputs")
    infer.add_argument("model", metavar="MODEL")
    infer.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="@file.png, @file.jpg, @file.npy, @file.json, or JSON such as [[1,2,3]]",
    )
    infer.add_argument("--labels", metavar="FILE", help="one label a line; the five best are printed")
    infer.add_argument("--timeout-us", type=int, metavar="N")
    infer.set_defaults(run=_infer)

    health = commands.add_parser("health", help="exit 0 if the server is ready, else 1")
    health.set_defaults(run=_health)
    models = commands.add_parser("models", help="list the models of a server")
    models.set_defaults(run=_models)
    bench = commands.add_parser("bench", help="measure a model with requests of random content")
    bench.add_argument("model", metavar="MODEL")
    bench.add_argument("--concurrency", type=int, default=8, metavar="N")
    bench.add_argument("--seconds", type=int, default=5, metavar="N")
    bench.add_argument("--rows", type=int, default=1, metavar="N", help="rows of each request")
    bench.set_defaults(run=_bench)
    for command in (infer, health, models, bench):
        command.add_argument("--url", metavar="URL", help="default: $KINGPOLE_URL or http://127.0.0.1:8000")
    return parser


def _serve(parsed: argparse.Namespace) -> int:
    from kingpole.cli.serve import serve

    return serve(parsed)


def _inspect(parsed: argparse.Namespace) -> int:
    from kingpole.cli.inspect import inspect

    return inspect(parsed.path, write=parsed.write)


def _infer(parsed: argparse.Namespace) -> int:
    from kingpole.cli.infer import infer

    return infer(parsed.url, parsed.model, parsed.input, parsed.labels, parsed.timeout_us)


def _health(parsed: argparse.Namespace) -> int:
    from kingpole.cli.health import health

    return health(parsed.url)


def _models(parsed: argparse.Namespace) -> int:
    from kingpole.cli.ask import models

    return models(parsed.url)


def _bench(parsed: argparse.Namespace) -> int:
    from kingpole.cli.bench import bench

    return bench(parsed.url, parsed.model, parsed.concurrency, parsed.seconds, parsed.rows)
