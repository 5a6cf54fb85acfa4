"""What a world is made of: the services, the requests of people, and what happens to them. Drawn by Hypothesis.

A plan says everything that chance does not decide; its `seed` decides the rest (latencies, ids, which worker is next).
Everything shrinks: fewer requests and happenings, earlier ones, smaller services.
"""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

SERVICES = ("agent", "orchestrator", "customer-portal")
STRATEGIES = ("ROLLING", "EARLY_BLOCKING", "EARLY_DEFERRED", "BLUE_GREEN", "LINEAR", "CANARY")
PAUSE_STAGES = ("PRE_SCALE_UP", "POST_SCALE_UP")
TRAFFIC_PAUSE_STAGES = (
    *PAUSE_STAGES,
    "POST_TEST_TRAFFIC_SHIFT",
    "PRE_PRODUCTION_TRAFFIC_SHIFT",
    "POST_PRODUCTION_TRAFFIC_SHIFT",
)
DECISIONS = ("CONTINUE", "CONTINUE", "ROLLBACK", "")
# How a deployment to a service ends if nothing else happens to it (faults of the local AWS).
FATES = (
    "",
    "",
    "",
    "",
    "",
    "",
    "crash",
    "crash",
    "image_pull",
    "slow",
    "stuck",
    "no_capacity",
    "alarm",
    "some_crash",
    "rollback_fails",
)
KINDS = ("version", "version", "forced", "unchanged", "elsewhere")
CALLS = ("UpdateService", "RegisterTaskDefinition", "StopServiceDeployment", "DescribeServices")
READS = ("DescribeServices", "DescribeServiceDeployments", "ListServiceDeployments", "DescribeTaskDefinition")
NEWER = ("DescribeServiceDeployments", "ListServiceDeployments")

# What happens on the way to AWS: the kind, and the actions that it may happen to.
ON_THE_WAY: dict[str, tuple[tuple[str, ...], ...]] = {
    "unreachable": (("UpdateService", "CreateService"), ("RegisterTaskDefinition",), READS),
    "request_lost": (
        ("UpdateService", "CreateService"),
        ("StopServiceDeployment",),
        ("ContinueServiceDeployment",),
        ("RegisterTaskDefinition",),
        READS,
    ),
    "late": (("UpdateService",), ("UpdateService",), ("UpdateService",)),
    "reply_lost": (
        ("UpdateService",),
        ("UpdateService",),
        ("CreateService",),
        ("RegisterTaskDefinition",),
        ("StopServiceDeployment",),
        ("ContinueServiceDeployment",),
        READS,
    ),
    # The reply is lost, and an outsider deploys right after the call, or right before it.
    "overtaken": (("UpdateService",), ("UpdateService",)),
    "undercut": (("UpdateService",), ("UpdateService",)),
    # An outsider deploys the same right before the rollout reads the service.
    "forestalled": (("DescribeServices",),),
    "reply_times_out": (("UpdateService", "CreateService"), ("StopServiceDeployment", "ContinueServiceDeployment")),
    "error_after": (("UpdateService",),),
    "server_error": (
        ("UpdateService", "CreateService"),
        ("RegisterTaskDefinition",),
        ("StopServiceDeployment",),
        READS,
    ),
    "throttled": (("UpdateService",), ("RegisterTaskDefinition",), READS),
    "denied": (("UpdateService",), ("StopServiceDeployment", "ContinueServiceDeployment"), READS, NEWER, NEWER),
    "expired": (("UpdateService",), READS),
}
TO_WORKERS = ("killed", "paused")
BY_OUTSIDERS = (
    "deploys",
    "deploys",
    "deploys_other",
    "stops",
    "scales",
    "disables",
    "deletes",
    "recreates",
    "continues",
)
BY_PEOPLE = ("stop", "stop", "member_removed", "suspended", "roll_back")
IN_ECS = ("stale",)
# Who decides at a pause: an outsider in the AWS console, people in the portal, or both.
DECIDERS = ("outsider", "portal", "portal", "both")


@dataclass(frozen=True)
class Request:
    """One upgrade that a person asks for. `twice`: the browser sends it twice, `with_key` or not."""

    at: int
    target: str
    kind: str
    twice: bool = False
    with_key: bool = True


@dataclass(frozen=True)
class Happening:
    """Something that happens `at` so many seconds after the beginning.

    `service` counts from the one that the first request is about.
    """

    at: int
    kind: str
    service: int = 0
    amount: int = 0
    actions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """A person's command for the deployment of an agent."""

    at: int
    command: str
    amount: int = 1


@dataclass(frozen=True)
class Shape:
    """The deploymentConfiguration of the services, and what people decide at a pause.

    A pause without a decision expires by itself.
    """

    strategy: str
    bake_minutes: int
    percent: int
    step_minutes: int
    pause: str
    pause_minutes: int
    pause_action: str
    decision: str
    function: str
    decider: str = "outsider"

    def as_configuration(self) -> dict[str, Any]:
        """Return it with ECS's own member names."""
        hooks: list[dict[str, Any]] = []
        if self.pause:
            timeout = {"timeoutInMinutes": self.pause_minutes, "action": self.pause_action}
            hooks.append({"targetType": "PAUSE", "lifecycleStages": [self.pause], "timeoutConfiguration": timeout})
        if self.function:
            hooks.append(
                {
                    "targetType": "AWS_LAMBDA",
                    "hookTargetArn": "arn:aws:lambda:eu-central-1:111111111111:function:check",
                    "roleArn": "arn:aws:iam::111111111111:role/hooks",
                    "lifecycleStages": [self.function],
                    "timeoutConfiguration": {"timeoutInMinutes": self.pause_minutes, "action": self.pause_action},
                }
            )
        configuration: dict[str, Any] = {"strategy": self.strategy, "lifecycleHooks": hooks}
        if self.strategy.startswith("EARLY"):
            cleanup = self.strategy.partition("_")[2]
            criteria = {"enable": True, "healthyPercent": 50, "sourceServiceRevisionCleanup": cleanup}
            configuration |= {"strategy": "ROLLING", "minimumHealthyPercent": 50, "earlySuccessCriteria": criteria}
        elif self.strategy != "ROLLING":
            configuration["bakeTimeInMinutes"] = self.bake_minutes
        if self.strategy == "LINEAR":
            configuration["linearConfiguration"] = {
                "stepPercent": float(self.percent),
                "stepBakeTimeInMinutes": self.step_minutes,
            }
        if self.strategy == "CANARY":
            configuration["canaryConfiguration"] = {
                "canaryPercent": float(self.percent),
                "canaryBakeTimeInMinutes": self.step_minutes,
            }
        return configuration


@dataclass(frozen=True)
class Plan:
    seed: int
    shape: Shape
    desired: tuple[int, ...]
    fates: tuple[str, ...]
    rolls_back: bool
    requests: tuple[Request, ...]
    happenings: tuple[Happening, ...]
    orders: tuple[Order, ...]


def requests() -> "st.SearchStrategy[tuple[Request, ...]]":
    one = st.builds(
        Request,
        at=st.integers(0, 30),
        target=st.sampled_from([*SERVICES, *SERVICES, "all"]),
        kind=st.sampled_from(KINDS),
        twice=st.sampled_from([False, False, False, True]),
        with_key=st.booleans(),
    )
    return st.lists(one, min_size=1, max_size=2).map(tuple)


def happenings() -> "st.SearchStrategy[tuple[Happening, ...]]":
    on_the_way = st.sampled_from([(kind, actions) for kind, sets in ON_THE_WAY.items() for actions in sets])
    at, service, amount = st.integers(0, 80), st.sampled_from([0, 0, 0, 1, 2]), st.integers(1, 20)
    one = st.one_of(
        st.builds(
            lambda what, at, amount: Happening(at, what[0], 0, amount, what[1]),
            on_the_way,
            at,
            amount,
        ),
        st.builds(Happening, at=at, kind=st.sampled_from(TO_WORKERS), service=st.integers(0, 30), amount=amount),
        st.builds(Happening, at=at, kind=st.sampled_from(BY_OUTSIDERS), service=service, amount=amount),
        st.builds(Happening, at=at, kind=st.sampled_from(BY_PEOPLE), service=service, amount=amount),
        st.builds(Happening, at=at, kind=st.sampled_from(IN_ECS), service=service, amount=st.integers(1, 14)),
    )
    return st.lists(one, max_size=6).map(tuple)


def orders() -> "st.SearchStrategy[tuple[Order, ...]]":
    command = st.sampled_from(["create", "scale", "scale", "stop", "restart", "kill"])
    one = st.builds(Order, at=st.integers(0, 120), command=command, amount=st.integers(1, 4))
    return st.one_of(st.just(()), st.just(()), st.just(()), st.lists(one, min_size=1, max_size=5).map(tuple))


def shapes(strategy: str) -> "st.SearchStrategy[Shape]":
    shifts = strategy in ("BLUE_GREEN", "LINEAR", "CANARY")
    stages = TRAFFIC_PAUSE_STAGES if shifts else PAUSE_STAGES
    return st.builds(
        Shape,
        strategy=st.just(strategy),
        bake_minutes=st.integers(0, 4),
        percent=st.sampled_from([50, 50, 34]),
        step_minutes=st.integers(0, 2),
        pause=st.one_of(st.just(""), st.sampled_from(stages)),
        pause_minutes=st.integers(1, 12),
        pause_action=st.sampled_from(["ROLLBACK", "CONTINUE"]),
        decision=st.sampled_from(DECISIONS),
        function=st.one_of(st.just(""), st.just(""), st.sampled_from(stages)),
        decider=st.sampled_from(DECIDERS),
    )


@st.composite
def plans(draw: Any, strategy: str) -> Plan:
    return Plan(
        seed=draw(st.integers(0, 2**20)),
        shape=draw(shapes(strategy)),
        desired=draw(st.tuples(*[st.integers(1, 4)] * 3)),
        fates=draw(st.tuples(*[st.sampled_from(FATES)] * 3)),
        rolls_back=draw(st.sampled_from([True, True, False])),
        requests=draw(requests()),
        happenings=draw(happenings()),
        orders=draw(orders()),
    )


# Worlds for what chance meets rarely. They come first in each run, so that a broken engine is noticed early.


def name_plans(seed: int) -> list[Plan]:
    """Return the named worlds: a lost reply and what else may happen at that moment, and decisions at pauses."""
    lost = Happening(0, "reply_lost", 0, 4, ("UpdateService",))
    forestalled = Happening(0, "forestalled", 0, 4, ("DescribeServices",))
    rolling = Shape("ROLLING", 0, 50, 0, "", 1, "ROLLBACK", "", "")
    worlds = [
        # The effect of the call appears after several reads: adopted, not called again.
        (rolling, "forced", (lost, Happening(0, "stale", 0, 14))),
        (rolling, "forced", (Happening(0, "late", 0, 15, ("UpdateService",)),)),
        (rolling, "elsewhere", (lost, Happening(0, "stale", 0, 14))),
        # An outsider deploys right after the call, or right before it: the oldest to its task definition is its own.
        (rolling, "forced", (Happening(0, "overtaken", 0, 2, ("UpdateService",)),)),
        (rolling, "version", (Happening(0, "overtaken", 0, 4, ("UpdateService",)),)),
        (rolling, "version", (Happening(0, "undercut", 0, 3, ("UpdateService",)),)),
        (rolling, "elsewhere", (forestalled, lost)),
        (rolling, "elsewhere", (forestalled, lost, Happening(0, "stale", 0, 5))),
    ]
    for decision in ("CONTINUE", "ROLLBACK"):
        for lost_call in ((), (Happening(0, "reply_lost", 0, 4, ("ContinueServiceDeployment",)),)):
            pause = Shape("LINEAR", 1, 50, 1, "PRE_PRODUCTION_TRAFFIC_SHIFT", 9, "ROLLBACK", decision, "", "portal")
            worlds.append((pause, "version", lost_call))
    # A long pause that ends by itself stops the clock of the deadline.
    worlds.append((Shape("ROLLING", 0, 50, 0, "PRE_SCALE_UP", 20, "CONTINUE", "", ""), "version", ()))
    worlds += [
        # A stop that AWS never gets, and a deployment that crashes by itself: the person is not the reason.
        (rolling, "version", (Happening(10, "request_lost", 0, 3, ("StopServiceDeployment",)), Happening(at, "stop")))
        for at in (15, 25, 40)
    ]
    return [
        Plan(
            seed + number,
            shape,
            (2, 2, 2),
            (choose_fate(shape, happenings), "", ""),
            True,
            (Request(0, "agent", kind),),
            happenings,
            (),
        )
        for number, (shape, kind, happenings) in enumerate(worlds)
    ]


def choose_fate(shape: Shape, happenings: tuple[Happening, ...]) -> str:
    """Return how the deployment of a named world ends."""
    if any(each.kind == "stop" for each in happenings):
        return "crash"
    return "slow" if shape.pause and not shape.decision else ""
