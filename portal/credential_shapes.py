"""Recognizes credentials: refuses them in what people enter, and masks them in what other systems report.

Every pattern is linear: repetitions are bounded, or cannot match the same text in two ways.
"""

import re

MASK = "***"
# Texts that are credentials wherever they occur, and their names for a message.
SHAPES = [
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("an AWS session token", re.compile(r"\b(?:FwoG|FQoG|IQoJ)[A-Za-z0-9+/=%_-]{16,}")),
    (
        "a private key",
        re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[^-]*-----END [A-Z ]{0,30}PRIVATE KEY-----)?"),
    ),
    ("an API token of this portal", re.compile(r"\baop_[A-Za-z0-9_-]{43}")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})")),
    ("a GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{16,}")),
    ("a Slack token", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}")),
    ("a Slack webhook", re.compile(r"\bhooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{8,}")),
    ("an API key", re.compile(r"\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]{1,40}[-_]){0,6}[A-Za-z0-9]{16,}")),
    ("a Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{30,}")),
    ("a signed token (JWT)", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")),
]
# `user:password@` and, in a DSN, `key@`.
USERINFO = re.compile(r"\b([a-z][a-z0-9+.-]{0,30}://)[^\s/]{1,512}@", re.I)
_NAMES = "password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|signature"
# `password=..`, `"SecretAccessKey": "..", `?X-Amz-Signature=..`. Not the `secret:<name>` of an ARN.
NAMED = re.compile(
    rf"(?<![:\w])([\w-]{{0,40}}?(?:{_NAMES})(?:[_-]?(?:id|value|text|key))?[\"']?(?:\s?=\s?|\s?:\s{{0,3}}))"
    r"(\"[^\"\r\n]{1,4096}\"|'[^'\r\n]{1,4096}'|[^\s\"',;&]{4,4096})",
    re.I,
)
AUTHORIZATION = re.compile(r"\b(authorization[\"']?\s?[:=]\s?[\"']?)[^\"'\r\n,;]{4,4096}", re.I)
BEARER = re.compile(r"\b(bearer\s)[A-Za-z0-9._~+/=-]{8,}", re.I)
# AWS's secret access keys have no shape but their length: 40 characters of base64, some words after `secret`.
SECRET_KEY = re.compile(r"(secret\b[^\r\n]{0,40}?)(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])", re.I)


def mask_credentials(text: str) -> str:
    """Return the text with everything that looks like a credential replaced by three asterisks.

    >>> mask_credentials("pull failed: https://robot:hunter2@registry.example/v2 with ASIA0123456789ABCDEF, password=x1y2")
    'pull failed: https://***@registry.example/v2 with ***, password=***'
    >>> mask_credentials("cannot read arn:aws:secretsmanager:eu-west-1:111111111111:secret:db-1a2b3c")
    'cannot read arn:aws:secretsmanager:eu-west-1:111111111111:secret:db-1a2b3c'
    """
    for _, shape in SHAPES:
        text = shape.sub(MASK, text)
    text = USERINFO.sub(rf"\1{MASK}@", text)
    text = AUTHORIZATION.sub(rf"\1{MASK}", text)
    text = BEARER.sub(rf"\1{MASK}", text)
    text = SECRET_KEY.sub(rf"\1{MASK}", text)
    return NAMED.sub(rf"\1{MASK}", text)
