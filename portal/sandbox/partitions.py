"""The partition of a region: its name in ARNs and the DNS suffix of its registries, from botocore's own data."""

import re
from functools import cache

from botocore.loaders import create_loader


@cache
def find_names(region: str) -> tuple[str, str]:
    """Return the partition's name and DNS suffix; those of `aws` for a region that botocore does not know."""
    partitions = create_loader().load_data("partitions")["partitions"]
    found = (each for each in partitions if region in each["regions"] or re.fullmatch(each["regionRegex"], region))
    partition = next(found, partitions[0])
    return partition["id"], partition["outputs"]["dnsSuffix"]


def partition(region: str) -> str:
    """Return the second part of an ARN in this region: `aws`, `aws-cn` and so on."""
    return find_names(region)[0]


def registry_host(account: str, region: str) -> str:
    return f"{account}.dkr.ecr.{region}.{find_names(region)[1]}"
