"""Creates the virtual environment and installs into it, or deletes the demo's data. Uses only the standard library.

If the machine lacks something, the message names what to do.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

from portal.local import leftovers

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
SYSTEM_PYTHON = "/usr/bin/python3"
# Prints the version of a Python that can make a virtual environment and compile packages in it.
PRINT_VERSION = (
    "import ensurepip, os, sys, sysconfig; assert os.path.exists(sysconfig.get_path('include') + '/Python.h'); "
    "print(*sys.version_info[:2])"
)


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
        made = subprocess.run([choose_python(), "-m", "venv", "--clear", str(VENV)], check=False)
        if made.returncode:
            stop("The virtual environment could not be created. On Debian: apt-get install python3-venv")
    print(f"  installing {requirements} (a minute or two the first time) ...", flush=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--require-hashes", "-r", requirements], check=False, cwd=ROOT).returncode:
        stop("The installation failed. See pip's message above. Nothing was started. Run `make up` again to continue.")


def choose_python() -> str:
    """Return the Python for the virtual environment: the one that runs this, or a faster build of the same version.

    pyenv builds Python without profile-guided optimization unless asked to, and the portal and its tests then take 1.4
    times the CPU. Distributions build with it. A Python that the caller names (`make up PYTHON=...`) is always used.
    """
    is_optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    if "PYTHON" in os.environ or is_optimized:
        return sys.executable
    try:
        asked = subprocess.run([SYSTEM_PYTHON, "-c", PRINT_VERSION], capture_output=True, text=True, check=False)
    except OSError:
        return sys.executable
    return SYSTEM_PYTHON if asked.stdout.split() == [str(part) for part in sys.version_info[:2]] else sys.executable


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
