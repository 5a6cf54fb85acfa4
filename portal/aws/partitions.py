"""AWS partitions: which regions and DNS suffixes exist, and which partition an ARN belongs to.

Everything comes from the partition data of the installed botocore, so a new partition needs a new botocore and no change
here. https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from botocore.loaders import create_loader

# A region that stands for all regions, such as `aws-global`, has no Amazon ECS.
PSEUDO_REGION = re.compile(r".*-global")


@dataclass(frozen=True)
class Partition:
    """A partition. `name` as in ARNs. `suffixes`: the DNS suffixes of its Amazon ECR registries, dual-stack last."""

    name: str
    suffixes: tuple[str, ...]
    regions: frozenset[str]
    region_pattern: re.Pattern[str]

    def has_region(self, region: str) -> bool:
        """Return whether the region is in this partition, listed or named like its other regions."""
        is_known = region in self.regions or self.region_pattern.fullmatch(region) is not None
        return is_known and not PSEUDO_REGION.fullmatch(region)


@cache
def read_partitions() -> tuple[Partition, ...]:
    """Return the partitions that botocore knows. *Costs* one read of a file, the first time."""
    data = create_loader().load_data("partitions")
    return tuple(build_partition(each) for each in data["partitions"])


def build_partition(raw: dict[str, Any]) -> Partition:
    dual_stack = str(raw["outputs"]["dualStackDnsSuffix"])
    return Partition(
        name=raw["id"],
        suffixes=(raw["outputs"]["dnsSuffix"], f"on.{dual_stack.removeprefix('api.')}"),
        regions=frozenset(raw["regions"]),
        region_pattern=re.compile(raw["regionRegex"], re.ASCII),
    )


def find_partition(region: str) -> Partition | None:
    """Return the partition of a region, None if no partition has such a region.

    >>> [getattr(find_partition(region), "name", None) for region in ("eusc-de-east-1", "cn-north-1", "mars-1")]
    ['aws-eusc', 'aws-cn', None]
    """
    return next((each for each in read_partitions() if each.has_region(region)), None)


def is_partition(name: str) -> bool:
    """Return whether ARNs of this partition exist: `aws`, `aws-cn`, `aws-eusc` and so on."""
    return any(each.name == name for each in read_partitions())


def is_placed_arn(arn: str) -> bool:
    """Return whether the partition of an ARN exists and its region, if it names one, is in that partition.

    >>> is_placed_arn("arn:aws-cn:ssm:cn-north-1:111111111111:parameter/a"), is_placed_arn("arn:aws:ssm:cn-north-1:1:x")
    (True, False)
    """
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn" or not is_partition(parts[1]):
        return False
    found = find_partition(parts[3])
    return not parts[3] or (found is not None and found.name == parts[1])


def registry_host(account: str, region: str) -> str:
    """Return the host of an account's Amazon ECR registry in a region.

    >>> registry_host("111111111111", "eusc-de-east-1")
    '111111111111.dkr.ecr.eusc-de-east-1.amazonaws.eu'
    """
    found = find_partition(region) or read_partitions()[0]
    return f"{account}.dkr.ecr.{region}.{found.suffixes[0]}"
