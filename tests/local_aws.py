"""A client of the local AWS for tests: starts a server in its own process and controls it through the control API."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any, Self

import boto3
import urllib3
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent
REGION = "eu-central-1"
OWN_KEY = "AKIAPORTALOWNKEY0001"

Json = dict[str, Any]


class ControlApiError(Exception):
    """An error response of the control API with its `status` and `message`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class LocalAws:
    """A running local AWS. Each test process starts its own; tests are isolated by their own cluster names."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self._clients: dict[tuple[str, str, float], Any] = {}
        self._connections = urllib3.connection_from_url(url, maxsize=4)

    @classmethod
    def start(
        cls,
        data_dir: Path | None = None,
        *,
        speed: float | None = None,
        pace: float | None = None,
        demo: bool = False,
        port: int = 0,
    ) -> Self:
        """Start a server on a free port (or `port`) and wait until it listens."""
        command = [sys.executable, "-m", "portal.sandbox", "--port", str(port)]
        command += ["--speed", str(speed)] if speed else []
        command += ["--pace", str(pace)] if pace else []
        command += ["--data-dir", str(data_dir)] if data_dir else []
        command += ["--demo"] if demo else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        line = process.stdout.readline()
        if "listening on" not in line:
            process.kill()
            raise RuntimeError(f"The local AWS did not start: {line!r}, exit code {process.wait()}.")
        return cls(process, line.split()[-1])

    def stop(self) -> None:
        """End the server with SIGTERM, as an operator would."""
        self.process.terminate()
        self._reap()

    def kill(self) -> None:
        """End the server with SIGKILL, whatever it is doing."""
        self.process.send_signal(signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        self.process.wait(timeout=10)
        self._connections.close()
        if self.process.stdout:
            self.process.stdout.close()

    # The control API

    def reset(self) -> None:
        """Delete everything (services, clusters, images, roles, faults, ledger, throttling) and reset the clock."""
        self.call("POST", "reset", {})

    def seed(self, **body: Any) -> Json:
        """Create a cluster, services in a steady state, roles and images, and return the ARNs and ids of the services.

        Example: `seed(cluster="c1", services=[{"name": "s1", "desired_count": 2}])`.
        """
        return self.call("POST", "seed", body)

    def fault(self, kind: str, **fields: Any) -> Json:
        """Add a fault and return it with its `id`."""
        return dict(self.call("POST", "faults", {"kind": kind, **fields})["fault"])

    def faults(self) -> list[Json]:
        return list(self.call("GET", "faults")["faults"])

    def clear_faults(self, fault_id: str | None = None) -> None:
        self.call("DELETE", f"faults?id={fault_id}" if fault_id else "faults")

    def platform_url(self, stack: str, service: str) -> str:
        """Return the base URL of a platform service's endpoints."""
        return f"{self.url}/_platform/{stack}/{service}"

    def set_platform(self, stack: str, part: str, status: str, **fields: Any) -> None:
        """Set the status of a part of a stack's platform; `healthy` resets it.

        Parts are a service, `mcp`, `component/<name>`, `connector/<name>` and `provider/<name>`. Their statuses are
        listed in portal/sandbox/platform_switches.py.
        """
        self.call("POST", "platform", {"stack": stack, "part": part, "status": status, **fields})

    def clear_platform(self, stack: str | None = None) -> None:
        self.call("DELETE", f"platform?{urllib.parse.urlencode({'stack': stack})}" if stack else "platform")

    def webhook_inbox_url(self, name: str) -> str:
        """Return the URL of an inbox, a webhook receiver."""
        return f"{self.url}/_sandbox/inbox/{name}"

    def webhook_inbox(self, name: str) -> list[Json]:
        """Return the messages in an inbox, oldest first: received_at (wall time), headers, body, answered."""
        return list(self.call("GET", f"inbox/{name}")["messages"])

    def answer_webhook_inbox(self, name: str, status: int, **fields: Any) -> None:
        """Let an inbox answer with `status` after `seconds`, for `times` deliveries or permanently."""
        self.call("PUT", f"inbox/{name}", {"status": status, **fields})

    def advance(self, seconds: float) -> float:
        """Advance the clock and return the sandbox time."""
        return float(self.call("POST", "clock", {"advance_seconds": seconds})["now"])

    def freeze(self, frozen: bool = True) -> float:
        """Freeze or resume the clock and return the sandbox time."""
        return float(self.call("POST", "clock", {"frozen": frozen})["now"])

    def set_speed(self, speed: float) -> None:
        self.call("POST", "clock", {"speed": speed})

    def now(self) -> float:
        return float(self.call("GET", "clock")["now"])

    def throttling(self, *, enabled: bool = True, scale: float = 1.0) -> None:
        """Turn AWS's request limits on or off, or scale them. Refills all buckets."""
        self.call("POST", "throttling", {"enabled": enabled, "scale": scale})

    def ledger(self, **filters: Any) -> list[Json]:
        """Return the write calls so far. Filters: account, region, action, cluster, service, error, effect, since."""
        texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in filters.items()}
        return list(self.call("GET", f"ledger?{urllib.parse.urlencode(texts)}")["entries"])

    def state(self) -> list[Json]:
        return list(self.call("GET", "state")["services"])

    def deployments(self, cluster: str) -> dict[str, Json]:
        """Return a cluster's services by name, with status and service deployments (newest first), despite stale reads."""
        return dict(self.call("GET", f"deployments?{urllib.parse.urlencode({'cluster': cluster})}")["services"])

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """Call the control API. Raises ControlApiError for any status other than 200."""
        data = None if body is None else json.dumps(body).encode()
        reply = self._connections.urlopen(method, f"/_sandbox/{path}", body=data, timeout=10, retries=False)
        answer = json.loads(reply.data)
        if reply.status != 200:
            raise ControlApiError(reply.status, answer["error"])
        return dict(answer)

    # AWS clients

    def client(
        self,
        service: str = "ecs",
        region: str = REGION,
        *,
        role_arn: str | None = None,
        external_id: str | None = None,
        read_timeout: float = 30.0,
    ) -> Any:
        """Return a boto3 client without retries, with the portal's own credentials or those of an assumed role.

        Creating one takes about 50 ms, so clients with the portal's own credentials are cached.
        """
        if role_arn:
            return self._new_client(service, region, self.assume(role_arn, external_id=external_id), read_timeout)
        wanted = (service, region, read_timeout)
        if wanted not in self._clients:
            keys = {"aws_access_key_id": OWN_KEY, "aws_secret_access_key": "own"}
            self._clients[wanted] = self._new_client(service, region, keys, read_timeout)
        return self._clients[wanted]

    def _new_client(self, service: str, region: str, keys: dict[str, str], read_timeout: float) -> Any:
        config = Config(retries={"total_max_attempts": 1}, read_timeout=read_timeout, connect_timeout=5)
        return boto3.client(service, region_name=region, endpoint_url=self.url, config=config, **keys)

    def assume(self, role_arn: str, *, external_id: str | None = None) -> dict[str, str]:
        """Assume a role and return the session's keys as arguments for boto3."""
        optional = {"ExternalId": external_id} if external_id else {}
        reply = self.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="test", **optional)
        return {
            "aws_access_key_id": reply["Credentials"]["AccessKeyId"],
            "aws_secret_access_key": reply["Credentials"]["SecretAccessKey"],
            "aws_session_token": reply["Credentials"]["SessionToken"],
        }

    def wait_until(self, condition: Any, *, step: float = 1.0, limit: float = 300.0) -> Any:
        """Advance the clock step by step until `condition()` is true, and return its value."""
        deadline = time.monotonic() + 20
        for _ in range(int(limit / step)):
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, "waited 20 s of real time"
            self.advance(step)
        raise AssertionError(f"not true within {limit} sandbox seconds")
