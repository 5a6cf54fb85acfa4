"""The table of `make bench`, and what `make bench-compare` prints. Without Django.

python -m bench.report BEFORE.json AFTER.json
"""

import json
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
COLUMNS = (
    "route", "app ms", "pg ms", "req/s", "p50", "p99", "SQL", "cache", "bytes", "plain app+pg", "x plain",
    "no-op", "bare app+pg", "of floor",
)  # fmt: skip


def cpu(subject: Json) -> float:
    """Return the CPU ms of application and PostgreSQL together."""
    return float(subject["app"] + subject["pg"])


def floor(route: Json) -> float | None:
    """Return the floor in ms: the signed-in no-op and the bare statement. None if the route has none."""
    return cpu(route["no-op"]) + cpu(route["bare"]) if "bare" in route else None


def heading(run: Json) -> str:
    about = (
        f"{run['revision']}, {run['date']}, scale {run['scale']}, {run['rounds']} windows of {run['seconds']:g} s, "
        f"{run['processes']} processes x {run['threads']} threads, Python {run['python']}, {run['machine']}"
    )
    return f"{about}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def line(name: str, route: Json) -> str:
    own, least = route["product"], floor(route)
    cells = [
        f"{name} ({own['status']:.0f})",
        f"{own['app']:.2f}", f"{own['pg']:.2f}", f"{own['per_second']:.0f}", f"{own['p50']:.1f}",
        f"{own['p99']:.1f}", str(route["statements"]), str(route["cache"]), f"{own['body_bytes']:.0f}",
    ]  # fmt: skip
    if "plain" in route:
        cells += [f"{route['plain']['app']:.2f}+{route['plain']['pg']:.2f}", f"{cpu(route['plain']) / cpu(own):.1f}"]
    else:
        cells += ["", ""]
    if least is not None:
        bare = route["bare"]
        cells += [f"{cpu(route['no-op']):.2f}", f"{bare['app']:.2f}+{bare['pg']:.2f}", f"{least / cpu(own):.2f}"]
    else:
        cells += ["", "", ""]
    return f"| {' | '.join(cells)} |"


def memory(found: Json) -> str:
    said = [f"{name} {each['workers']:.0f} MB and {each['parent']:.0f} of the parent" for name, each in found.items()]
    return f"\nMemory of the workers after all routes (PSS): {'; '.join(said)}."


def compare(before: Json, after: Json) -> str:
    """Return what changed between two files of --json, as a table. `x`: how many times less CPU it takes now."""
    lines = [
        f"{before['run']['revision']} (scale {before['run']['scale']}) -> "
        f"{after['run']['revision']} (scale {after['run']['scale']})",
        "",
        "| route | app+pg ms | x | SQL | cache | bytes | p50 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, now in after["routes"].items():
        was = before["routes"].get(name)
        if was is None:
            continue
        old, new = was["product"], now["product"]
        cells = [
            name, f"{cpu(old):.2f} -> {cpu(new):.2f}", f"{cpu(old) / cpu(new):.2f}",
            f"{was['statements']} -> {now['statements']}", f"{was['cache']} -> {now['cache']}",
            f"{old['body_bytes']:.0f} -> {new['body_bytes']:.0f}", f"{old['p50']:.1f} -> {new['p50']:.1f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    sizes = [each["memory"]["product"]["workers"] for each in (before, after)]
    return "\n".join([*lines, "", f"Memory of the workers: {sizes[0]:.0f} -> {sizes[1]:.0f} MB."])


def find_differences(product: Any, bare: Any, at: str = "") -> list[str]:
    """Return the places where two JSON documents differ, such as `items.0.status`."""
    if isinstance(product, dict) and isinstance(bare, dict):
        keys = product.keys() | bare.keys()
        return [
            found for key in sorted(keys) for found in find_differences(product.get(key), bare.get(key), f"{at}.{key}")
        ]
    if isinstance(product, list) and isinstance(bare, list) and len(product) == len(bare):
        pairs = enumerate(zip(product, bare, strict=True))
        return [found for number, pair in pairs for found in find_differences(*pair, f"{at}.{number}")]
    return [] if product == bare else [f"{at.lstrip('.')} ({str(product)[:60]} / {str(bare)[:60]})"]


if __name__ == "__main__":
    print(compare(*(json.loads(Path(name).read_text()) for name in sys.argv[1:3])))
