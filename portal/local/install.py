"""Before there is a virtual environment: install into it, or drop the demo's data. The standard library alone.

Every way in which a fresh machine may not be ready is met by a sentence that says what to do.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"


def main(arguments: list[str]) -> None:
    if len(arguments) == 2 and arguments[0] == "install":
        install(arguments[1])
    elif arguments == ["reset"]:
        reset()
    else:
        stop("usage: python -m portal.setup install REQUIREMENTS | reset")


def install(requirements: str) -> None:
    """Make .venv if need be and bring it to exactly the locked versions; pip shows its progress."""
    if not shutil.which("cc") and not shutil.which("gcc"):
        stop(
            "Redis is compiled while it installs: a C compiler is missing. On Debian: apt-get install gcc libc6-dev make"
        )
    if not (VENV / "bin" / "pip").exists():
        print("  making the virtual environment ...", flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False)
        if made.returncode:
            stop("No virtual environment could be made. On Debian: apt-get install python3-venv")
    print(f"  installing {requirements} (a minute or two the first time) ...", flush=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--require-hashes"]
    if subprocess.run([*pip, "-r", requirements], check=False, cwd=ROOT).returncode:
        stop("Installing failed; pip's message stands above. Nothing was started; `make up` again goes on from here.")


def reset() -> None:
    """Delete DATA_DIR, unless a running `make up` holds it or it is not ours."""
    data_dir = Path(os.environ.get("DATA_DIR") or ROOT / ".data").resolve()
    if not data_dir.exists():
        print("There is no data to drop.")
        return
    if not (data_dir / "lock").exists():
        stop(f"{data_dir} was not made by `make up`; nothing was deleted.")
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stop(f"`make up` runs on {data_dir}. Stop it with Ctrl-C first; nothing was deleted.")
        shutil.rmtree(data_dir)
    print(f"Dropped {data_dir}.")


def stop(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(1)
