"""Runs worlds until one breaks an invariant, and prints the figures.

make sim SEED=7                      the full run: 2,000 rollouts of each strategy
make sim SEED=7 ARGS="--worlds 500"  the short form
make sim SEED=7013 ARGS="--worlds 10 --processes 1"  one batch again, as a failure prints it
"""

import argparse
import io
import sys
import time

from sim import parts


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--worlds", type=int, default=0, help="so many worlds in all; 0: until there are enough rollouts"
    )
    parser.add_argument("--rollouts", type=int, default=2000, help="so many rollouts of each strategy")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, help="run only this batch of the seed, as a failure names it")
    parser.add_argument("--keep-going", action="store_true", help="run on after a world that breaks an invariant")
    parser.add_argument("--no-shrink", dest="shrink", action="store_false", help="do not search for a smaller world")
    options = parser.parse_args()
    began = time.monotonic()
    parts.prepare_environment()
    from sim import replaced

    replaced.install()
    import django

    django.setup()
    from sim import batches

    return batches.run(options, began=began)


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    code = main()
    sys.stdout.flush()
    raise SystemExit(code)
