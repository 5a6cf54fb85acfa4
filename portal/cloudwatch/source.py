"""What is read of CloudWatch: the logs and metrics of one ECS service."""

from dataclasses import dataclass
from datetime import datetime

from portal.aws.credentials import AwsTarget


@dataclass(frozen=True)
class Source:
    """A service whose logs and metrics are read. All readers with the same `key` share what is read.

    `log_group`: None if it does not write to CloudWatch Logs; `note` says why there are no lines. `stream_prefix`: how the
    names of its tasks' streams begin. `began`: nothing is read of an earlier time.
    """

    key: str
    target: AwsTarget
    cluster: str
    service: str
    log_group: str | None
    stream_prefix: str
    began: datetime
    note: str | None = None
