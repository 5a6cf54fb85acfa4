"""What an agent may be made of: image, size, environment. Pure checks, each with a sentence for people.

Secrets are referred to by ARN, never kept: a value that looks like one is refused.
"""

import math
import re
from collections import Counter

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
FARGATE_SIZES: dict[int, list[int]] = {
    256: [512, 1024, 2048],
    512: list(range(1024, 4096 + 1, 1024)),
    1024: list(range(2048, 8192 + 1, 1024)),
    2048: list(range(4096, 16384 + 1, 1024)),
    4096: list(range(8192, 30720 + 1, 1024)),
    8192: list(range(16384, 61440 + 1, 4096)),
    16384: list(range(32768, 122880 + 1, 8192)),
}

# https://github.com/distribution/reference/blob/main/reference.go: name[:tag][@digest]
IMAGE = re.compile(
    r"(?P<name>(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
MAX_IMAGE_LENGTH = 512

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html and ...-ssm-paramstore
SECRET_ARN = re.compile(
    r"arn:aws[a-z-]*:(?:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!:-]{1,600}"
    r"|ssm:[a-z0-9-]+:[0-9]{12}:parameter/[A-Za-z0-9_./-]{1,1010})"
)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
MAX_VARIABLES, MAX_VALUE_LENGTH = 100, 4096

SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEY|KEY|SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|PWD|CREDENTIALS?)(?:_(?:ID|VALUE|TEXT))?$", re.I
)
HARMLESS_NAME = re.compile(r"(?:^|_)(?:PUBLIC|PARTITION|SORT|CACHE|ROUTING|PRIMARY)_KEY$", re.I)
KNOWN_SHAPES = [
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})")),
    ("a GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{16,}")),
    ("a Slack token", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}")),
    ("an API key", re.compile(r"\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]+[-_])*[A-Za-z0-9]{16,}")),
    ("a Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{30,}")),
    ("a signed token (JWT)", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.")),
    ("an address with a password", re.compile(r"[a-z][a-z0-9+.-]{0,30}://[^\s/:@]{0,256}:[^\s/@]{1,256}@", re.I)),
]
HARMLESS_VALUE = re.compile(
    r"sha(?:256|512):[0-9a-f]{64,128}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|arn:aws[a-z-]*:[^\s]{1,2000}", re.I
)
LONG_RUN = re.compile(r"[A-Za-z0-9+/=_]{20,}")
INSTEAD = "Put it into Secrets Manager or the SSM Parameter Store, and give its ARN here."


def is_secret_reference(value: str) -> bool:
    return SECRET_ARN.fullmatch(value) is not None


def image_errors(image: str) -> list[str]:
    if len(image) > MAX_IMAGE_LENGTH:
        return [f"An image reference has {MAX_IMAGE_LENGTH} characters at most."]
    if not IMAGE.fullmatch(image):
        return [f"{image[:80]!r} is no image reference. Write it as registry/repository:tag, or with @sha256:<digest>."]
    return []


def version_errors(version: str) -> list[str]:
    return [] if TAG.fullmatch(version) else [f"{version[:80]!r} is no image tag: letters, digits and _.- only."]


def image_version(image: str) -> str | None:
    """The tag of an image reference; None when it has none.

    >>> image_version("registry:5000/team/agent:v2")
    'v2'
    """
    found = IMAGE.fullmatch(image)
    return found["tag"] if found else None


def with_version(image: str, version: str) -> str:
    """The same image with another tag, and without a digest.

    >>> with_version("registry:5000/team/agent:v2", "v3")
    'registry:5000/team/agent:v3'
    """
    found = IMAGE.fullmatch(image)
    return f"{found['name'] if found else image}:{version}"


def size_errors(cpu: int, memory: int) -> dict[str, list[str]]:
    """By field; empty for a pair that Fargate has."""
    if cpu not in FARGATE_SIZES:
        return {"cpu": [f"Fargate has tasks of {', '.join(map(str, FARGATE_SIZES))} CPU units, not {cpu}."]}
    sizes = FARGATE_SIZES[cpu]
    if memory not in sizes:
        step = f" in steps of {sizes[1] - sizes[0]}" if len(sizes) > 3 else f": {', '.join(map(str, sizes))}"
        return {"memory": [f"With {cpu} CPU units Fargate has {sizes[0]} to {sizes[-1]} MiB{step}; not {memory}."]}
    return {}


def environment_errors(environment: dict[str, str]) -> list[str]:
    """A sentence for each variable that cannot be, naming it and never its value."""
    if len(environment) > MAX_VARIABLES:
        return [f"{len(environment)} variables are too many: {MAX_VARIABLES} at most."]
    found = []
    for name, value in environment.items():
        if not VARIABLE.fullmatch(name):
            found.append(f"{name[:80]!r} is no variable's name: letters, digits and underscores, no digit first.")
        elif name.upper().startswith("AWS_ECS_") or name.upper().startswith("ECS_"):
            found.append(f"{name}: names that begin with ECS_ or AWS_ECS_ belong to Amazon ECS.")
        elif len(value) > MAX_VALUE_LENGTH or "\x00" in value:
            found.append(f"{name}: a value has {MAX_VALUE_LENGTH} characters at most, and no NUL.")
        elif why := looks_like_secret(name, value):
            found.append(f"{name} {why}. {INSTEAD}")
    return found


def looks_like_secret(name: str, value: str) -> str | None:
    """Why this plain value seems to be a secret; None when it does not, or is a reference to one."""
    if not value or is_secret_reference(value):
        return None
    for what, shape in KNOWN_SHAPES:
        if shape.search(value):
            return f"looks like {what}"
    if SECRET_NAME.search(name) and not HARMLESS_NAME.search(name):
        return "is named like a secret and has a value"
    if HARMLESS_VALUE.fullmatch(value):
        return None
    if any(is_random(run) for run in LONG_RUN.findall(value)):
        return "looks like a random token"
    return None


def is_random(run: str) -> bool:
    """Whether a run of characters is more likely a generated token than a word: its entropy per character."""
    counts = Counter(run)
    entropy = -sum(count / len(run) * math.log2(count / len(run)) for count in counts.values())
    if set(run.lower()) <= set("0123456789abcdef"):
        return len(run) >= 32 and entropy > 3.0
    kinds = sum((any(c.islower() for c in run), any(c.isupper() for c in run), any(c.isdigit() for c in run)))
    return kinds == 3 and entropy > 3.7
