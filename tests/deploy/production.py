"""Runs the portal as in production: with its settings, and with only the packages of requirements.txt."""

import os
import subprocess
import sys
from pathlib import Path

from tests.local_aws import ROOT

PRODUCTION_ONLY = ROOT / "tests" / "deploy" / "production_only"
# Nothing answers at these addresses: what runs with them needs no database, broker or cache.
SETTINGS = {
    "SECRET_KEY": "0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "DATABASE_URL": "postgresql://portal_app@localhost/none",
    "CELERY_BROKER_URL": "redis://localhost",
    "CACHE_URL": "redis://localhost",
    "ALLOWED_HOSTS": "portal.example",
}


def run_python(*arguments: str, folder: Path = ROOT, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in the folder and return what it printed, whatever its exit code."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PRODUCTION_ONLY), **SETTINGS, **settings}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
