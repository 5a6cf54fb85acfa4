"""Validation rules for an agent's image, task size and environment. Pure functions that return error sentences.

Secrets are referenced by ARN and never stored. A plain value that looks like a secret is refused.
"""

import math
import re
from collections import Counter
from collections.abc import Collection

from portal.aws.partitions import is_placed_arn
from portal.credential_shapes import ASSIGNED, AUTHORIZATION, BEARER, OPTION, PAIRED, SHAPES, USER_OPTION

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
    r"arn:[a-z-]+:(?:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!:-]{1,600}"
    r"|ssm:[a-z0-9-]+:[0-9]{12}:parameter/[A-Za-z0-9_./-]{1,1010})"
)
# ECS passes names on as they are: spring.datasource.url, ConnectionStrings:Default. A form's comments begin with #.
VARIABLE = re.compile(r"(?!#)[!-<>-~]{1,255}")
MAX_VARIABLES, MAX_VALUE_LENGTH = 100, 4096

# The last words of names of secrets. A separator is no letter and no digit: DB_PASS, db.password, Stripe:ApiKey.
# DBPASS is one, but not BYPASS, COMPASS or OVERPASS.
SECRET_NAME = re.compile(
    r"(?:PASSWORDS?|PASSWD|PASSPHRASE|PASS_?CODES?|SECRETS?|SECRET_?KEYS?|API_?KEYS?|ACCESS_?KEYS?|PRIVATE_?KEYS?"
    r"|[A-Z0-9]TOKEN|CREDENTIALS?|(?<![YMR])PASS|PWD|(?:^|[^A-Z0-9])(?:PASS|PW|KEYS?|TOKEN))"
    r"(?:_?\d{1,3}|_(?:ID|VALUE|TEXT|BASE|PROD|PRODUCTION|STAGING|DEV|TEST|OLD|NEW|CURRENT|PREVIOUS|PRIMARY|SECONDARY))?$",
    re.I,
)
HARMLESS_NAME = re.compile(
    r"(?:^|[^A-Z0-9])(?:PUBLIC|PUB|PARTITION|SORT|CACHE|ROUTING|PRIMARY|FOREIGN|RANGE|SHARD|GROUP|S3|OBJECT|BUCKET|KMS"
    r"|IDEMPOTENCY)_?KEYS?(?:_(?:ID|ARN|ALIAS|NAME))?$",
    re.I,
)
# Names of values that are public or computed, and are as long and mixed as a token: a commit, a checksum, a public key.
COMPUTED_NAME = re.compile(
    r"(?:^|[^A-Z0-9])(?:SHA\d*|MD5|COMMIT|REVISION|REV|REF|DIGEST|CHECKSUM|HASH|ETAG|FINGERPRINT|TRACEPARENT|TRACE|SPAN"
    r"|VERSION|RELEASE|BUILD|TAG|PUBLIC_?KEY|PUB_?KEY|CERT|CERTIFICATE)(?:_?(?:ID|SHA|HASH))?$",
    re.I,
)
KNOWN_SHAPES = [
    *SHAPES,
    ("an address with a password", re.compile(r"[a-z][a-z0-9+.-]{0,30}://[^\s/:@]{0,256}:[^\s/@]{1,256}@", re.I)),
]
# Values with a credential inside that some applications publish on purpose, so a person may say that it is no secret.
WITH_CREDENTIAL = [
    (
        "contains a password",
        re.compile(r"(?:^|;)\s{0,9}(?:password|pwd|account_?key|shared_?access_?key)\s{0,9}=\s{0,9}[^;\s]", re.I),
    ),
    ("is an address with a key (a DSN)", re.compile(r"https?://[0-9a-z]{16,64}@", re.I)),
    *(
        ("contains a password or token", each)
        for each in (ASSIGNED, PAIRED, OPTION, USER_OPTION, AUTHORIZATION, BEARER)
    ),
    (
        "is an address with a token",
        re.compile(r"[?&](?:[a-z_-]{0,20}token|api_?key|key|sig|signature|secret|password|auth)=[^&\s]{6}", re.I),
    ),
]
# A W3C trace parent is two hexadecimal ids: https://www.w3.org/TR/trace-context/#traceparent-header
TRACE_PARENT = r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
HARMLESS_VALUE = re.compile(
    TRACE_PARENT + r"|sha(?:256|512):[0-9a-f]{64,128}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.I
)
ARN = re.compile(r"arn:[^\s]{1,2000}")
LONG_RUN = re.compile(r"[A-Za-z0-9+/=_]{20,}")
INSTEAD = "Store it in Secrets Manager or the SSM Parameter Store and enter its ARN here."
IF_NOT = "If it is no secret, name it under not_secrets."


def is_secret_reference(value: str) -> bool:
    return SECRET_ARN.fullmatch(value) is not None and is_placed_arn(value)


def image_errors(image: str) -> list[str]:
    if len(image) > MAX_IMAGE_LENGTH:
        return [f"An image reference can have at most {MAX_IMAGE_LENGTH} characters."]
    if not IMAGE.fullmatch(image):
        return [
            f"{image[:80]!r} is not a valid image reference. "
            "Use registry/repository:tag or registry/repository@sha256:<digest>."
        ]
    return []


def version_errors(version: str) -> list[str]:
    if TAG.fullmatch(version):
        return []
    return [f"{version[:80]!r} is not a valid image tag. Use only letters, digits, underscores, dots and hyphens."]


def image_version(image: str) -> str | None:
    """Return the tag of an image reference, or None if it has none.

    >>> image_version("registry:5000/team/agent:v2")
    'v2'
    """
    found = IMAGE.fullmatch(image)
    return found["tag"] if found else None


def split_image(image: str) -> tuple[str, str]:
    """Return the name, and tag or digest with its sign. A narrow column cuts the name alone.

    >>> split_image("registry:5000/team/agent:v2"), split_image("team/agent")
    (('registry:5000/team/agent', ':v2'), ('team/agent', ''))
    """
    found = IMAGE.fullmatch(image)
    end = found.end("name") if found else len(image)
    return image[:end], image[end:]


def with_version(image: str, version: str) -> str:
    """Return the image reference with another tag and without a digest.

    >>> with_version("registry:5000/team/agent:v2", "v3")
    'registry:5000/team/agent:v3'
    """
    found = IMAGE.fullmatch(image)
    return f"{found['name'] if found else image}:{version}"


def size_errors(cpu: int, memory: int) -> dict[str, list[str]]:
    """Return the error sentences by field. Empty if Fargate supports this pair of CPU and memory."""
    if cpu not in FARGATE_SIZES:
        return {"cpu": [f"Fargate does not support {cpu} CPU units. Use one of {', '.join(map(str, FARGATE_SIZES))}."]}
    sizes = FARGATE_SIZES[cpu]
    if memory not in sizes:
        step = f" in steps of {sizes[1] - sizes[0]}" if len(sizes) > 3 else f": {', '.join(map(str, sizes))}"
        range_text = f"{sizes[0]} to {sizes[-1]} MiB{step}"
        return {"memory": [f"Fargate does not support {memory} MiB with {cpu} CPU units. Use {range_text}."]}
    return {}


def environment_errors(
    environment: dict[str, str], *, kept: dict[str, str] | None = None, not_secrets: Collection[str] = ()
) -> list[str]:
    """Return a sentence for each invalid variable. It names the variable but never its value.

    `kept`: present values, which are not judged again. `not_secrets`: names that a person says are no secrets.
    """
    if len(environment) > MAX_VARIABLES:
        return [f"{len(environment)} variables are too many. The limit is {MAX_VARIABLES}."]
    found = []
    for name, value in environment.items():
        if not VARIABLE.fullmatch(name):
            found.append(
                f"{name[:80]!r} is not a valid variable name. "
                "Use letters, digits and signs such as _ . : - but no space and no equals sign."
            )
        elif name.upper().startswith("AWS_ECS_") or name.upper().startswith("ECS_"):
            found.append(f"{name}: names that begin with ECS_ or AWS_ECS_ are reserved for Amazon ECS.")
        elif len(value) > MAX_VALUE_LENGTH or "\x00" in value:
            found.append(f"{name}: a value can have at most {MAX_VALUE_LENGTH} characters and must not contain NUL.")
        elif (kept or {}).get(name) == value:
            continue
        elif why := looks_like_known_secret(value):
            found.append(f"{name} {why}. {INSTEAD}")
        elif name not in not_secrets and (why := looks_like_secret(name, value)):
            found.append(f"{name} {why}. {INSTEAD} {IF_NOT}")
    return found


def looks_like_known_secret(value: str) -> str | None:
    """Return which credential this value contains by its form. None if it has none, or is a reference to a secret."""
    if is_secret_reference(value):
        return None
    return next((f"looks like {what}" for what, shape in KNOWN_SHAPES if shape.search(value)), None)


def looks_like_secret(name: str, value: str) -> str | None:
    """Return why this plain value may be a secret. None if it does not look so, or if it is a reference to one."""
    if not value or is_secret_reference(value):
        return None
    if SECRET_NAME.search(name) and not HARMLESS_NAME.search(name):
        return "is named like a secret but has a plain value"
    for why, shape in WITH_CREDENTIAL:
        if shape.search(value):
            return why
    if HARMLESS_VALUE.fullmatch(value) or (ARN.fullmatch(value) and is_placed_arn(value)):
        return None
    if COMPUTED_NAME.search(name):
        return None
    if any(is_random(run) for run in LONG_RUN.findall(value)):
        return "looks like a random token"
    return None


def is_random(run: str) -> bool:
    """Return whether the entropy per character suggests a generated token rather than a word."""
    counts = Counter(run)
    entropy = -sum(count / len(run) * math.log2(count / len(run)) for count in counts.values())
    if set(run.lower()) <= set("0123456789abcdef"):
        return len(run) >= 32 and entropy > 3.0
    kinds = sum((any(c.islower() for c in run), any(c.isupper() for c in run), any(c.isdigit() for c in run)))
    return kinds == 3 and entropy > 3.7
