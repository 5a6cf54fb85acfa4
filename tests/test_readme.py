"""What README.md lists is what the code does."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_permission_of_the_aws_role_is_listed() -> None:
    used = set(re.findall(r'"ecs:(\w+)"', (ROOT / "portal" / "aws" / "ecs.py").read_text()))

    listed = re.search(r"The portal's AWS role needs(.*?)or\s+`sts:AssumeRole`", (ROOT / "README.md").read_text(), re.S)

    assert listed
    assert {name.removeprefix("ecs:") for name in re.findall(r"`([\w:]+)`", listed[1])} == used
