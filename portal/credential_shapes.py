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
    ("an npm token", re.compile(r"\bnpm_[A-Za-z0-9]{30,}")),
    ("a PyPI token", re.compile(r"\bpypi-[A-Za-z0-9_-]{40,}")),
    ("a Docker Hub token", re.compile(r"\bdckr_[po]at_[A-Za-z0-9_-]{20,}")),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{30,}")),
    ("a SendGrid API key", re.compile(r"\bSG\.[A-Za-z0-9_-]{16,40}\.[A-Za-z0-9_-]{16,}")),
    ("a signing secret of a webhook", re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]{20,}")),
    ("a Google access token", re.compile(r"\bya29\.[A-Za-z0-9_-]{20,}")),
    ("a signed token (JWT)", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")),
]
# `user:password@` and, in a DSN, `key@`.
USERINFO = re.compile(r"\b([a-z][a-z0-9+.-]{0,30}://)[^\s/]{1,512}@", re.I)
# `curl -u name:password`. Not `docker run -u 1000:1000`.
USER_OPTION = re.compile(
    r"(?<![\w-])((?:-u|--(?:proxy-)?user)[\s=]\s{0,3}[\"']?(?!\d{1,10}:\d{1,10}(?!\S))[^\s:\"']{1,200}:)[^\s\"']{1,4096}",
    re.I,
)
# `curl -uname:password`. Not `-upstream:8080`.
CURL_USER = re.compile(
    r"(\bcurl\s(?:[^\r\n|;&]{0,200}?\s)?-u[\"']?[^\s:\"'-][^\s:\"']{0,200}:)(?!\d{1,5}(?!\S))[^\s\"']{1,4096}"
)
_NAMES = (
    "password|passwd|passphrase|passcode|passwort|pwd|secret|token|(?:api|access|private|account|encryption|signing)[_-]?key"
    "|credentials?|signature"
)
# Names that are words of a sentence before a colon.
_SHORT_NAMES = rf"{_NAMES}|(?<![A-Za-z0-9])(?:pass|pw|auth|sig|sid|session[_-]?id)"
_KIND = r"(?:[_-]?(?:id|value|text|key|string|binary))?"
# A quote of JSON, also of JSON within a string of JSON.
_QUOTE = r"\\{0,7}[\"']"
# What follows a name: all until the same quote, or a word, also after a quote that never ends.
_QUOTED = rf"(?P<quote>{_QUOTE})(?!(?P=quote))[^\r\n]{{1,4096}}?(?<!\\)(?P=quote)"
_VALUE = rf"(?:{_QUOTED}|(?:{_QUOTE})?[^\s\"',;&]{{1,4096}})"
_LONGER_VALUE = rf"(?:{_QUOTED}|(?:{_QUOTE})?[^\s\"',;&]{{4,4096}})"
# `"SecretAccessKey": "..`, `x-api-key: ..`. Not the `secret:<name>` of an ARN.
NAMED = re.compile(rf"(?<!:)((?:{_NAMES}){_KIND}(?:{_QUOTE})?\s?:\s{{0,3}}){_LONGER_VALUE}", re.I)
# `password=..`, `?X-Amz-Signature=..`, `DB_PASS=..`, `:token => ..`, `"auth": ".."`.
ASSIGNED = re.compile(
    rf"((?:{_SHORT_NAMES}){_KIND}(?:(?:{_QUOTE})?\s?(?::=|=>?)\s?|{_QUOTE}\s?:\s?(?={_QUOTE}))){_VALUE}", re.I
)
# `{"name": "DB_PASSWORD", "value": ".."}`, `{Name:DB_PASSWORD Value:..}`
_PAIR_NAME = rf"(?:name|key)(?:{_QUOTE})?\s?[:=]\s?(?:{_QUOTE})?[\w.-]{{0,80}}?(?:{_SHORT_NAMES}){_KIND}(?:{_QUOTE})?"
_PAIR_VALUE = rf"(?:parameter)?value(?:{_QUOTE})?\s?[:=]\s?"
PAIRED = re.compile(rf"({_PAIR_NAME}[\s,;]{{1,40}}(?:{_QUOTE})?{_PAIR_VALUE}){_VALUE}", re.I)
PAIRED_BACKWARDS = re.compile(
    rf"({_PAIR_VALUE}(?:{_QUOTE})?)[^\s\"',;&]{{1,100}}+(?=(?:{_QUOTE})?[\s,;]{{1,40}}(?:{_QUOTE})?{_PAIR_NAME}(?![\w.-]))",
    re.I,
)
# `--password ..`
OPTION = re.compile(rf"(?<![\w-])(--?[\w-]{{0,40}}?(?:{_NAMES})\s)(?!-)(?:{_QUOTED}|\S{{1,4096}})", re.I)
AUTHORIZATION = re.compile(r"\b(authorization[\"']?\s?[:=]\s?[\"']?)[^\"'\r\n,;]{4,4096}", re.I)
# Base64 has a capital, a digit or a sign: not "basic authentication".
BASIC = re.compile(r"\b([Bb]asic\s)(?=[a-z]{0,200}[A-Z0-9+/=])[A-Za-z0-9+/]{6,4096}={0,2}")
BEARER = re.compile(r"\b(bearer\s)[A-Za-z0-9._~+/=-]{8,}", re.I)
# AWS's secret access keys have no shape but their length: 40 characters of base64, some words after `secret`.
SECRET_KEY = re.compile(r"(secret\b[^\r\n]{0,40}?)(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])", re.I)

# A text without any of these has nothing for the patterns that mask what follows a name, which take the most time.
SAID = ("pass", "pw", "secret", "token", "key", "credential", "sig", "sid", "session", "auth", "bearer", "basic")


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
    for pattern in (USER_OPTION, CURL_USER):
        text = pattern.sub(rf"\1{MASK}", text)
    lower = text.lower()
    if any(word in lower for word in SAID):
        for pattern in (AUTHORIZATION, BEARER, BASIC, SECRET_KEY, NAMED, ASSIGNED, PAIRED, PAIRED_BACKWARDS, OPTION):
            text = pattern.sub(rf"\1{MASK}", text)
    return text
