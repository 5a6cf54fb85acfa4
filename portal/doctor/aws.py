"""Checks of AWS, for `doctor --aws`: its clock, and what each organization's role may read. They only read."""

import time
from collections.abc import Iterator

from portal.admin.connection_test import StepStatus, take_steps
from portal.aws.errors import AwsError, summarize_error
from portal.aws.reachability import get_home_region
from portal.aws.sts import read_clock
from portal.doctor.findings import Finding, problem
from portal.doctor.machine import compare_clocks
from portal.models import Organization

# The header is in whole seconds.
UNCERTAIN_SECONDS = 1.0


def check_clock() -> Iterator[Finding]:
    """This machine's clock must agree with AWS's, which refuses signatures that are five minutes off."""
    before = time.time()
    try:
        theirs = read_clock(get_home_region()).timestamp()
    except AwsError as error:
        yield problem(f"AWS does not answer: {summarize_error(error)}", "Check the network and AWS_REGION.")
        return
    after = time.time()
    yield from compare_clocks("AWS's", theirs + 0.5 - (before + after) / 2, UNCERTAIN_SECONDS + (after - before) / 2)


def check_organization(organization: Organization) -> Iterator[Finding]:
    """The organization's role must allow every read of an upgrade. Each step waits at most 8 s; silence ends the rest."""
    for step in take_steps(organization):
        if step.status == StepStatus.FAILED:
            yield problem(f"{organization.slug}: {step.name} failed.", step.detail)
