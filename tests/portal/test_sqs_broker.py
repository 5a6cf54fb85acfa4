"""SQS as the broker: the product's own scheduler and worker, through the real transport, against a local SQS."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from portal.aws.policies import build_portal_policy, build_queue_by_name_policy
from portal.models import Heartbeat
from tests.local_aws import REGION, ROOT
from tests.processes import free_port, wait_for, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

QUEUES = f"arn:aws:sqs:{REGION}:123456789012:"
POLICIES = {
    "staff": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}]},
    "portal-of-ours": build_portal_policy(roles=["*"], queue=f"{QUEUES}portal-of-ours"),
    # Without the queue's name: moto knows no resource of CreateQueue.
    "operations-portal-celery": build_queue_by_name_policy("*"),
}
# The environment with each user's key, once the server runs.
KEYS: dict[str, dict[str, str]] = {}
NO_QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/nowhere"
# What a web process knows of its broker, and what it does with a message.
ASK = """
import json, time
from portal.wakeup import dispatch
from portal.monitoring.health import broker_answers
started_at = time.monotonic()
print(json.dumps([dispatch("portal.tasks.worker_beat"), broker_answers(), time.monotonic() - started_at]))
"""


@pytest.fixture(scope="module")
def sqs_url() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: listens(url))
    enforce_policies(url)
    yield url
    server.kill()
    server.wait()


def enforce_policies(url: str) -> None:
    """Create the users with a key each, and let the local SQS deny from then on what their policies do not allow."""
    iam = boto3.client("iam", endpoint_url=url, region_name=REGION)
    for name, policy in POLICIES.items():
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="sqs", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        KEYS[name] = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    plain = {"Content-Type": "text/plain"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", plain)) as reply:
        assert reply.status == 200


def client(url: str) -> Any:
    keys = {name.lower(): value for name, value in KEYS.get("staff", {}).items()}
    return boto3.client("sqs", endpoint_url=url, region_name=REGION, **keys)


def queues(url: str) -> list[str]:
    return [found.rpartition("/")[2] for found in client(url).list_queues().get("QueueUrls", [])]


def listens(url: str) -> bool:
    try:
        queues(url)
    except EndpointConnectionError:
        return False
    return True


def with_sqs(url: str, **more: str) -> dict[str, str]:
    """For a process of the portal on the test's database whose broker is this SQS."""
    broker = {"CELERY_BROKER_URL": "sqs://", "SQS_REGION": REGION, "AWS_ENDPOINT_URL_SQS": url}
    return worker_environment() | broker | more


@contextmanager
def running(env: dict[str, str], *commands: list[str]) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env) for command in commands]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            assert process.wait(timeout=60) == 0


WORKER = ["-m", "celery", "--quiet", "-A", "portal", "worker", "--concurrency", "1", "--loglevel", "WARNING"]
SCHEDULER = ["manage.py", "run_scheduler"]


def waiting(url: str, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    sqs = client(url)
    attributes = sqs.get_queue_attributes(QueueUrl=sqs.get_queue_url(QueueName=queue)["QueueUrl"], AttributeNames=names)
    return sum(int(attributes["Attributes"][name]) for name in names)


def ask(env: dict[str, str]) -> list[Any]:
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", ASK]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    found: list[Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.fixture
def own_queue(sqs_url: str) -> str:
    return str(client(sqs_url).create_queue(QueueName="portal-of-ours")["QueueUrl"])


@pytest.mark.parametrize("queue", ["portal-of-ours", "operations-portal-celery"])
def test_a_worker_takes_what_the_scheduler_sends(sqs_url: str, own_queue: str, queue: str) -> None:
    """With the policy of docs/deploy/iam, and no other right."""
    env = with_sqs(sqs_url, SQS_QUEUE_URL=own_queue if queue == "portal-of-ours" else "", **KEYS[queue])

    with running(env, WORKER, SCHEDULER):
        wait_for(lambda: Heartbeat.objects.filter(name="worker").exists())

        assert ask(env)[:2] == [True, True]
        wait_for(lambda: waiting(sqs_url, queue) == 0)
    assert queue in queues(sqs_url)


@pytest.mark.parametrize("broken", ["endpoint", "queue"])
def test_a_queue_out_of_reach_is_known_soon(sqs_url: str, broken: str) -> None:
    env = with_sqs(sqs_url, SQS_QUEUE_URL=NO_QUEUE, **KEYS["staff"])
    if broken == "endpoint":
        env = with_sqs("http://127.0.0.1:1")

    rung, answers, seconds = ask(env)

    assert (rung, answers, seconds < 20) == (False, False, True)
