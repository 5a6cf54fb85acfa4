"""Entry point of `python -m portal.sandbox`, which starts the local AWS."""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

# Set before moto is imported, so that it fetches nothing and prints no warnings.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
os.environ.pop("MOTO_ACCOUNT_ID", None)


def main() -> None:
    options = parse_options()
    logging.basicConfig(level=logging.WARNING, format="local AWS: %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    from werkzeug.serving import make_server

    from portal.sandbox.control import with_control
    from portal.sandbox.demo import seed_demo
    from portal.sandbox.http import request_handler
    from portal.sandbox.platform import with_platform
    from portal.sandbox.scheduler import PACE
    from portal.sandbox.server import Sandbox

    if options.data_dir:
        options.data_dir.mkdir(parents=True, exist_ok=True)
    PACE.hasten(options.pace)
    sandbox = Sandbox(data_dir=options.data_dir)
    was_restored = sandbox.restore()
    if options.speed:
        sandbox.clock.set_speed(options.speed)
    if options.demo and not was_restored:
        seed_demo(sandbox)
        sandbox.save()
    handler = request_handler(sandbox.clock)
    application = with_platform(sandbox, with_control(sandbox))
    server = make_server(options.host, options.port, application, threaded=True, request_handler=handler)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if not options.quiet:
        print(f"local AWS listening on http://{options.host}:{server.port}", flush=True)
    try:
        server.serve_forever()
    finally:
        with sandbox.lock:
            sandbox.save()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m portal.sandbox", description="A local AWS for the portal.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000, help="0 picks a free port")
    parser.add_argument("--data-dir", type=Path, default=None, help="store state here; without it in memory")
    parser.add_argument("--speed", type=positive, help="sandbox seconds per real second; as saved, or 1")
    parser.add_argument("--pace", type=positive, default=1.0, help="how much faster than usual deployments move")
    parser.add_argument("--demo", action="store_true", help="seed the demo data if there is no state yet")
    parser.add_argument("--quiet", action="store_true", help="do not print the address")
    return parser.parse_args()


def positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return value


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        # All is saved. Python would now free moto's data object by object, which takes longer than all else in a stop.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code or 0))
