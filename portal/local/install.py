"""Creates the virtual environment and installs into it, or deletes the demo's data. Uses only the standard library.

If the machine lacks something, the message names what to do.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from portal.local import leftovers

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"


def main(arguments: list[str]) -> None:
    if len(arguments) == 2 and arguments[0] == "install":
        install(arguments[1])
    elif arguments == ["reset"]:
        reset()
    else:
        stop("usage: python -m portal.local.setup install REQUIREMENTS | reset")


def install(requirements: str) -> None:
    """Create .venv if it is missing, and install the locked versions. pip shows only errors."""
    if not shutil.which("cc") and not shutil.which("gcc"):
        stop(
            "A C compiler is missing, which the installation of Redis needs. On Debian: apt-get install gcc libc6-dev make"
        )
    if not (VENV / "bin" / "pip").exists():
        print("  creating the virtual environment ...", flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False)
        if made.returncode:
            stop("The virtual environment could not be created. On Debian: apt-get install python3-venv")
    print(f"  installing {requirements} (a minute or two the first time) ...", flush=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--require-hashes", "-r", requirements], check=False, cwd=ROOT).returncode:
        stop("The installation failed. See pip's message above. Nothing was started. Run `make up` again to continue.")


def reset() -> None:
    """Delete DATA_DIR, and stop what a killed `make up` left running on it.

    Deletes nothing if `make up` runs there or has never run there.
    """
    data_dir = Path(os.environ.get("DATA_DIR") or ROOT / ".data").resolve()
    if not data_dir.exists():
        print("There is no data to drop.")
        return
    if not (data_dir / "lock").exists():
        stop(f"{data_dir} was not made by `make up`; nothing was deleted.")
    try:
        with leftovers.hold(data_dir):
            leftovers.stop_all(data_dir)
            shutil.rmtree(data_dir)
    except leftovers.HeldError:
        stop(f"`make up` runs on {data_dir}. Stop it with Ctrl-C first; nothing was deleted.")
    except PermissionError as error:
        stop(f"You may not delete {error.filename}: run `make reset` as its owner, or set DATA_DIR to your folder.")
    print(f"Dropped {data_dir}.")


def stop(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(1)
