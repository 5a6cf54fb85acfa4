"""What a world is made of: the services, the requests of people, and what happens to them. Drawn by Hypothesis.

A plan says everything that chance does not decide; its `seed` decides the rest (latencies, ids, which worker is next).
Everything shrinks: fewer requests and happenings, earlier ones, smaller services.
"""

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

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
# All workers stop after their step and come back after so many times this long.
BY_OPERATORS = ("asleep",)
ASLEEP_SECONDS = 30
# What AWS answers to the engine for a whole world, once an upgrade has been accepted: the kind, and the actions.
STANDING: dict[str, tuple[str, tuple[str, ...]]] = {
    "no_service_deployments": ("denied", ("ListServiceDeployments", "DescribeServiceDeployments")),
    "no_list": ("denied", ("ListServiceDeployments",)),
    "no_describe": ("denied", ("DescribeServiceDeployments",)),
    "no_update": ("denied", ("UpdateService",)),
    "no_registration": ("denied", ("RegisterTaskDefinition",)),
    "no_stop": ("denied", ("StopServiceDeployment", "ContinueServiceDeployment")),
    "no_reads": ("denied", ("DescribeServices",)),
    "refused": ("refused", ("UpdateService",)),
    "failing": ("server_error", ("UpdateService",)),
    "cluster_missing": ("", ()),  # the organization names a cluster that does not exist
}
# Who decides at a pause: an outsider in the AWS console, people in the portal, or both.
DECIDERS = ("outsider", "portal", "portal", "both")


@dataclass(frozen=True)
class Request:
    """One upgrade that a person asks for. `twice`: the browser sends it twice, `with_key` or not, the second time later."""

    at: int
    target: str
    kind: str
    twice: bool = False
    with_key: bool = True
    again_after: int = 0


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
    """`standing` is a key of STANDING, or empty. Without a breaker, ECS starts tasks that crash again and again."""

    seed: int
    shape: Shape
    desired: tuple[int, ...]
    fates: tuple[str, ...]
    rolls_back: bool
    requests: tuple[Request, ...]
    happenings: tuple[Happening, ...]
    orders: tuple[Order, ...] = ()
    standing: str = ""
    has_breaker: bool = True


def requests() -> "st.SearchStrategy[tuple[Request, ...]]":
    one = st.builds(
        Request,
        at=st.integers(0, 30),
        target=st.sampled_from([*SERVICES, *SERVICES, "all"]),
        kind=st.sampled_from(KINDS),
        twice=st.sampled_from([False, False, False, True]),
        with_key=st.booleans(),
        again_after=st.sampled_from([0, 0, 1, 4]),
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
        st.builds(
            Happening,
            at=at,
            kind=st.sampled_from([*IN_ECS, *IN_ECS, *BY_OPERATORS]),
            service=service,
            amount=st.integers(1, 14),
        ),
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
        standing=draw(st.sampled_from([*[""] * 50, *STANDING])),
        has_breaker=draw(st.sampled_from([True, True, True, True, True, False])),
    )


# Worlds for what chance meets rarely. They come first in each run, so that a broken engine is noticed early.

ROLLING = Shape("ROLLING", 0, 50, 0, "", 1, "ROLLBACK", "", "")
BLUE_GREEN = Shape("BLUE_GREEN", 4, 50, 0, "", 1, "ROLLBACK", "", "")
BREAKER_STOPS: Json = {"rolls_back": False}


def name_plans(seed: int) -> list[Plan]:
    """Return the named worlds. Those come first that notice the coarsest mistakes of the engine."""
    worlds = [
        *name_strategies(),
        *name_people(),
        *name_workers(),
        *name_agents(),
        *name_deletions(),
        *name_lost_replies(),
        *name_decisions(),
        *name_standing(),
        *name_sleepers(),
    ]
    return [replace(plan, seed=seed + number) for number, plan in enumerate(worlds)]


def name_plan(
    shape: Shape,
    *happenings: Happening,
    kind: str = "version",
    target: str = "agent",
    fate: str = "",
    orders: tuple[Order, ...] = (),
    **fields: Any,
) -> Plan:
    """Return the plan of a named world with one request. `fate` is that of the service `agent`."""
    asked = (Request(0, target, kind),)
    plan = Plan(0, shape, (2, 2, 2), (fate, "", ""), True, asked, happenings, orders)
    return replace(plan, **fields)


def name_strategies() -> list[Plan]:
    """Return worlds that show how deployments of each kind end by themselves."""
    return [
        # All three services in a row; after a failure the others are not attempted.
        name_plan(ROLLING, target="all", desired=(1, 1, 1)),
        name_plan(ROLLING, target="all", fate="crash", desired=(1, 1, 1)),
        # A bake that is longer than the base of the deadline.
        name_plan(replace(BLUE_GREEN, bake_minutes=12)),
        name_plan(replace(BLUE_GREEN, bake_minutes=2), fate="alarm"),
        name_plan(replace(ROLLING, strategy="EARLY_DEFERRED"), desired=(4, 1, 1)),
        # Nobody can upgrade it for long: ECS has it open past the deadline, until a person stops it.
        name_plan(ROLLING, fate="stuck"),
        name_plan(ROLLING, fate="crash", has_breaker=False),
        name_plan(ROLLING, fate="crash", rolls_back=False),
        # A long pause that ends by itself stops the clock of the deadline.
        name_plan(replace(ROLLING, pause="PRE_SCALE_UP", pause_minutes=20, pause_action="CONTINUE"), fate="slow"),
    ]


def name_people() -> list[Plan]:
    """Return worlds in which people ask twice, and stop at the moments at which it matters."""
    asleep = Happening(0, "asleep", 0, 1)
    worlds = [
        *(name_plan(ROLLING, requests=(Request(0, "agent", "version", True, True, after),)) for after in (0, 9)),
        # The stop arrives before any worker has claimed the rollout: ECS is not called at all.
        name_plan(ROLLING, asleep, Happening(10, "stop")),
        name_plan(ROLLING, asleep, Happening(10, "stop"), target="all", desired=(1, 1, 1)),
        # A stop in the bake, with minutes left.
        name_plan(BLUE_GREEN, Happening(60, "stop")),
    ]
    for at in (15, 25, 40):
        # A stop that AWS never gets, and a deployment that crashes by itself: the person is not the reason.
        unanswered = Happening(10, "request_lost", 0, 3, ("StopServiceDeployment",))
        worlds.append(name_plan(ROLLING, unanswered, Happening(at, "stop"), fate="crash"))
    return worlds


def name_workers() -> list[Plan]:
    """Return worlds in which a worker stands still for longer than its lease, or dies, some steps after its claim."""
    return [
        name_plan(ROLLING, Happening(at, kind, steps), fate="slow")
        for at, kind, steps in ((12, "paused", 6), (12, "paused", 9), (1, "killed", 12), (2, "killed", 4))
    ]


def name_agents() -> list[Plan]:
    """Return worlds in which the reply to CreateService is lost, and the next reads do not show the service yet."""
    lost = Happening(0, "reply_lost", 0, 4, ("CreateService",))
    orders = (Order(0, "create", 2),)
    return [
        name_plan(ROLLING, lost, kind="unchanged", orders=orders),
        name_plan(ROLLING, lost, Happening(0, "stale_cluster", 0, 20), kind="unchanged", orders=orders),
    ]


def name_deletions() -> list[Plan]:
    """Return worlds in which the service is deleted. For some seconds ECS shows it, with a deployment that was stopped."""
    return [name_plan(BLUE_GREEN, Happening(at, "deletes"), desired=(4, 1, 1)) for at in range(40, 58, 4)]


def name_lost_replies() -> list[Plan]:
    """Return worlds in which the reply to UpdateService is lost, and what else may happen at that moment."""
    lost = Happening(0, "reply_lost", 0, 4, ("UpdateService",))
    stale = Happening(0, "stale", 0, 14)
    forestalled = Happening(0, "forestalled", 0, 4, ("DescribeServices",))
    return [
        # The effect of the call appears after several reads: adopted, not called again.
        name_plan(ROLLING, lost, stale, kind="forced"),
        name_plan(ROLLING, Happening(0, "late", 0, 15, ("UpdateService",)), kind="forced"),
        name_plan(ROLLING, lost, stale, kind="elsewhere"),
        # An outsider deploys right after the call, or right before it: the oldest to its task definition is its own.
        name_plan(ROLLING, Happening(0, "overtaken", 0, 2, ("UpdateService",)), kind="forced"),
        name_plan(ROLLING, Happening(0, "overtaken", 0, 4, ("UpdateService",))),
        name_plan(ROLLING, Happening(0, "undercut", 0, 3, ("UpdateService",))),
        name_plan(ROLLING, forestalled, lost, kind="elsewhere"),
        name_plan(ROLLING, forestalled, lost, Happening(0, "stale", 0, 5), kind="elsewhere"),
    ]


def name_decisions() -> list[Plan]:
    """Return worlds in which people decide at a pause, and the reply to their decision is lost."""
    pause = Shape("LINEAR", 1, 50, 1, "PRE_PRODUCTION_TRAFFIC_SHIFT", 9, "ROLLBACK", "", "", "portal")
    lost = Happening(0, "reply_lost", 0, 4, ("ContinueServiceDeployment",))
    return [
        name_plan(replace(pause, decision=decision), *happenings)
        for decision in ("CONTINUE", "ROLLBACK")
        for happenings in ((), (lost,))
    ]


def name_standing() -> list[Plan]:
    """Return worlds in which AWS denies or refuses actions from the first to the last step of the engine."""
    stop = Happening(20, "stop")
    lost = Happening(0, "reply_lost", 0, 4, ("UpdateService",))
    stale = Happening(0, "stale", 0, 14)
    deploys, deploys_other = Happening(20, "deploys"), Happening(25, "deploys_other")
    without_list: list[tuple[str, tuple[Happening, ...], Json]] = [
        ("", (), {}),
        ("crash", (), {}),
        ("crash", (), BREAKER_STOPS),
        ("alarm", (), BREAKER_STOPS),
        ("rollback_fails", (), {}),
        ("", (deploys,), {}),
        ("crash", (deploys,), {}),
        ("", (deploys_other,), {}),
        ("", (lost,), {}),
        ("", (stop,), {}),
        ("crash", (stop,), {}),
        ("rollback_fails", (stop,), {}),
        ("", (Happening(20, "stops"),), {}),
        ("", (stale,), {}),
        ("crash", (stale,), {}),
        ("", (Happening(30, "asleep", 0, 6), Happening(170, "deploys")), {}),
        ("crash", (Happening(30, "asleep", 0, 6), Happening(170, "deploys")), {}),
    ]
    worlds = [
        name_plan(ROLLING, *happenings, fate=fate, standing="no_service_deployments", **fields)
        for fate, happenings, fields in without_list
    ]
    return [
        *worlds,
        name_plan(BLUE_GREEN, standing="no_service_deployments"),
        name_plan(ROLLING, deploys_other, standing="no_list"),
        name_plan(ROLLING, fate="crash", standing="no_describe"),
        name_plan(ROLLING, stop, standing="no_stop"),
        *(name_plan(ROLLING, standing=each) for each in ("no_update", "no_registration", "no_reads")),
        *(name_plan(ROLLING, standing=each) for each in ("refused", "failing", "cluster_missing")),
    ]


def name_sleepers() -> list[Plan]:
    """Return worlds in which no worker runs while the deployment ends, and others deploy over it."""
    asleep, mended = Happening(20, "asleep", 0, 7), Happening(170, "deploys")
    return [
        name_plan(ROLLING, asleep, mended),
        name_plan(ROLLING, asleep, Happening(25, "deploys")),
        name_plan(ROLLING, asleep, mended, fate="crash"),
        name_plan(ROLLING, asleep, mended, fate="crash", **BREAKER_STOPS),
        # Longer than the base of the deadline.
        name_plan(ROLLING, Happening(20, "asleep", 0, 18)),
        name_plan(ROLLING, Happening(0, "asleep", 0, 18)),
    ]
