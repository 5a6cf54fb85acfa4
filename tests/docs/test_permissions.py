"""The permissions that docs/deployment.md lists are those that the code uses."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_permission_of_the_aws_role_is_listed() -> None:
    aws = ROOT / "portal" / "aws"
    files = [*(aws / "ecs").glob("*.py"), aws / "revisions.py", aws / "ecr.py"]
    used = {name for file in files for name in re.findall(r'"(ec[rs]:\w+)"', file.read_text())}

    listed = re.search(
        r"The portal's AWS role needs(.*?)or\s+`sts:AssumeRole`", (ROOT / "docs" / "deployment.md").read_text(), re.S
    )

    assert listed
    names = re.findall(r"`([\w:]+)`", listed[1])
    assert {name if ":" in name else f"ecs:{name}" for name in names} == used
