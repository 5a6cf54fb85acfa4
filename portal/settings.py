"""Every setting, read only from the environment. An invalid value stops the start and names docs/configuration.md."""

import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import DatabaseError, InterfaceError
from environs import Env, EnvError, ValidationError, validate

from portal.local.exposure import DEMO_STAYS_HOME, is_local_name

env = Env()
BASE_DIR = Path(__file__).resolve().parent.parent

BROKER_URL = validate.Regexp(r"(redis|rediss|redis\+socket|sqs|amqp|amqps)://", error="Not a broker's URL.")
# A standard queue: a FIFO queue would hold a message back for its group.
QUEUE_URL = validate.Regexp(
    r"(https?://[^/]+/[0-9]{12}/[A-Za-z0-9_-]{1,80})?$",
    error="Give a standard queue, such as https://sqs.eu-central-1.amazonaws.com/111111111111/portal.",
)
SHARED_CACHE_URL = validate.Regexp(r"(redis|rediss|unix)://", error="Not the URL of a Redis.")
ORIGIN = validate.Regexp(r"https?://[^/]+$", error="Use origins such as https://portal.example.")
BASE_ADDRESS = validate.Regexp(
    r"(https?://[^/?#\s]+/?)?$", error="Use the base address, such as https://portal.example."
)
CONTACT = validate.Regexp(r"(mailto:|https://|tel:)[^\s]+$", error="Use mailto:, https:// or tel:.")
POSITIVE = validate.Range(min=0, min_inclusive=False)
NOT_NEGATIVE = validate.Range(min=0)
LOG_LEVELS = validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])


def find_process() -> str:
    """Return the kind of this process, whose limits in the database differ: web, worker (scheduler too) or command.

    `doctor` checks the limits of the web process, so it has them.
    """
    program = Path(sys.argv[0])
    if program.name == "celery" or program.parent.name == "celery" or "run_scheduler" in sys.argv[1:2]:
        return "worker"
    is_command = program.name in ("manage.py", "django-admin") and "doctor" not in sys.argv[1:2]
    return "command" if is_command else "web"


PROCESS = find_process()
# A statement that ran so often on a connection is prepared there. Not the first time: many run once.
PREPARE_AFTER = 3


def networks(texts: list[str]) -> None:
    for text in texts:
        try:
            ip_network(text)
        except ValueError as error:
            raise ValidationError(f"{text} is not a network such as 10.1.0.0/16.") from error


try:
    DEBUG: bool = env.bool("DEBUG", False)
    # `make up` and the tests set DEMO=1: one machine, plain HTTP, demo people. Never set it in production.
    DEMO: bool = env.bool("DEMO", False)
    # A demo has known passwords and a known key, so it stays on its own machine unless this says otherwise.
    DEMO_EXPOSED: bool = env.bool("DEMO_EXPOSED", False)
    LOCAL: bool = DEBUG or DEMO
    SECRET_KEY: str = env.str("SECRET_KEY", "local-only-key-that-protects-nothing-but-the-demo-data" if LOCAL else "")
    # Earlier keys, newest first: sessions and sealed secrets that were made with them are still read.
    SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", [])
    ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "testserver"] if LOCAL else [])
    CSRF_TRUSTED_ORIGINS: list[str] = env.list(
        "CSRF_TRUSTED_ORIGINS", [], validate=lambda origins: [ORIGIN(origin) for origin in origins]
    )
    database: dict[str, Any] = env.dj_db_url("DATABASE_URL")
    # The role that owns the tables, for `migrate`. Without it, DATABASE_URL's role owns them.
    DATABASE_OWNER: dict[str, Any] = env.dj_db_url("DATABASE_OWNER_URL", env.str("DATABASE_URL"))
    # The passwords that `manage.py create_roles` gives to portal_owner and portal_app. Nothing else reads them.
    OWNER_PASSWORD: str = env.str("OWNER_PASSWORD", "")
    APP_PASSWORD: str = env.str("APP_PASSWORD", "")
    DATABASE_CONN_MAX_AGE: int = env.int("DATABASE_CONN_MAX_AGE", 60, validate=validate.Range(min=0))
    # Seconds after which PostgreSQL ends a statement, the wait for a lock, an idle transaction. 0: never.
    DATABASE_STATEMENT_SECONDS: float = env.float(
        "DATABASE_STATEMENT_SECONDS", {"web": 5.0, "worker": 30.0, "command": 0.0}[PROCESS], validate=NOT_NEGATIVE
    )
    DATABASE_LOCK_SECONDS: float = env.float(
        "DATABASE_LOCK_SECONDS", {"web": 2.0, "worker": 5.0, "command": 5.0}[PROCESS], validate=NOT_NEGATIVE
    )
    DATABASE_IDLE_SECONDS: float = env.float(
        "DATABASE_IDLE_SECONDS", {"web": 10.0, "worker": 30.0, "command": 0.0}[PROCESS], validate=NOT_NEGATIVE
    )
    CELERY_BROKER_URL: str = env.str("CELERY_BROKER_URL", validate=BROKER_URL)
    # With CELERY_BROKER_URL=sqs://: where the queue is, and the queue itself if it should not be found or made by name.
    SQS_REGION: str = env.str("SQS_REGION", env.str("AWS_DEFAULT_REGION", env.str("AWS_REGION", "")))
    SQS_QUEUE_URL: str = env.str("SQS_QUEUE_URL", "", validate=QUEUE_URL)
    # The rate limits of sign-in live in the cache, so production needs one that all processes share.
    cache_url: str = env.str("CACHE_URL", "locmem://" if LOCAL else "", validate=None if LOCAL else SHARED_CACHE_URL)
    # Seconds for which a process does not call a cache or broker again after it failed.
    OUTAGE_RETRY_SECONDS: float = env.float("OUTAGE_RETRY_SECONDS", 5.0, validate=POSITIVE)
    # Web processes, and threads of each. At most half of the threads wait for AWS at a time (portal/aws/bulkhead.py).
    WEB_PROCESSES: int = env.int("WEB_PROCESSES", 2, validate=POSITIVE)
    WEB_THREADS: int = env.int("WEB_THREADS", 8, validate=validate.Range(min=2))
    # Seconds after SIGTERM in which the web server still serves requests while /readyz answers 503.
    WEB_DRAIN_SECONDS: float = env.float("WEB_DRAIN_SECONDS", 10.0, validate=validate.Range(min=0))
    LOG_LEVEL: str = env.str("LOG_LEVEL", "INFO", validate=LOG_LEVELS)
    # Seconds after which another worker may take the work of one that was killed or stands still. More than a write to AWS
    # may take: SENT_WITHIN_SECONDS of portal/aws/ecs/update.py and the time-outs of portal/aws/credentials.py.
    LEASE_SECONDS: float = env.float("LEASE_SECONDS", 20.0, validate=validate.Range(min=18))
    # Seconds without a scheduler's heartbeat after which the workers run the scheduled jobs (portal/stand_in.py).
    STAND_IN_SECONDS: float = env.float("STAND_IN_SECONDS", 15.0, validate=POSITIVE)
    LOG_FORMAT: str = env.str("LOG_FORMAT", "text" if LOCAL else "json", validate=validate.OneOf(["json", "text"]))
    # Seconds after which a rollout that has not ended is overdue, plus what its deployment's own configuration allows.
    UPGRADE_DEADLINE_SECONDS: int = env.int("UPGRADE_DEADLINE_SECONDS", 45 * 60, validate=POSITIVE)
    # Seconds without a newly running task after which a rollout is flagged `stalled`.
    UPGRADE_STALL_SECONDS: int = env.int("UPGRADE_STALL_SECONDS", 5 * 60, validate=POSITIVE)
    # Seconds between two observations of a new rollout; older ones are observed less often.
    UPGRADE_POLL_SECONDS: float = env.float("UPGRADE_POLL_SECONDS", 2.0, validate=POSITIVE)
    # Seconds after a lost UpdateService reply in which the deployment that it started may still become visible.
    UPGRADE_ADOPT_SECONDS: float = env.float("UPGRADE_ADOPT_SECONDS", 15.0, validate=validate.Range(min=0))
    # Seconds for which the services must be steady before an upgrade counts as validated; seconds for which the portal
    # probes; seconds after which it notifies people that an upgrade is not validated.
    UPGRADE_STEADY_SECONDS: int = env.int("UPGRADE_STEADY_SECONDS", 5 * 60, validate=POSITIVE)
    UPGRADE_VALIDATION_SECONDS: int = env.int("UPGRADE_VALIDATION_SECONDS", 30 * 60, validate=POSITIVE)
    UPGRADE_VALIDATION_REMINDER_SECONDS: int = env.int(
        "UPGRADE_VALIDATION_REMINDER_SECONDS", 60 * 60, validate=POSITIVE
    )
    # Seconds between two observations of a deployment that is changing or being viewed.
    DEPLOYMENTS_POLL_SECONDS: float = env.float("DEPLOYMENTS_POLL_SECONDS", 3.0, validate=POSITIVE)
    # Seconds between two observations of a steady deployment, if the budget below allows it.
    DEPLOYMENTS_STEADY_SECONDS: float = env.float("DEPLOYMENTS_STEADY_SECONDS", 15.0, validate=POSITIVE)
    # DescribeServices calls per minute for steady deployments, per AWS account and region. ECS allows 1200 in total.
    DEPLOYMENTS_READS_PER_MINUTE: int = env.int("DEPLOYMENTS_READS_PER_MINUTE", 60, validate=POSITIVE)
    # Seconds in which a read of ECS may still show the state before a write. A contradicting state must be seen twice.
    DEPLOYMENTS_LAG_SECONDS: float = env.float("DEPLOYMENTS_LAG_SECONDS", 15.0, validate=POSITIVE)
    # Seconds after which a deployment without a started task has failed.
    DEPLOYMENTS_START_SECONDS: int = env.int("DEPLOYMENTS_START_SECONDS", 20 * 60, validate=POSITIVE)
    # Minutes for which staff may read an organization's pages after they entered it with a reason.
    STAFF_ACCESS_MINUTES: int = env.int("STAFF_ACCESS_MINUTES", 30, validate=POSITIVE)
    # How long rows are kept that no one needs any more (portal/retention.py, portal/audit_pruning.py).
    IDEMPOTENCY_RETENTION_DAYS: int = env.int("IDEMPOTENCY_RETENTION_DAYS", 90, validate=POSITIVE)
    NOTIFICATION_RETENTION_DAYS: int = env.int("NOTIFICATION_RETENTION_DAYS", 30, validate=POSITIVE)
    AUDIT_RETENTION_DAYS: int = env.int("AUDIT_RETENTION_DAYS", 400, validate=POSITIVE)
    # Networks beyond the public internet that probes and webhooks may reach, also by http and on any port.
    # portal/outbound.py lists the addresses that are never reached.
    PROBE_NETWORKS: list[str] = env.list("PROBE_NETWORKS", [], validate=networks)
    WEBHOOK_NETWORKS: list[str] = env.list("WEBHOOK_NETWORKS", [], validate=networks)
    # Seconds after sign-in, and seconds without a request, after which a session ends.
    SESSION_COOKIE_AGE: int = env.int("SESSION_LIFETIME_SECONDS", 12 * 60 * 60, validate=validate.Range(min=600))
    SESSION_IDLE_SECONDS: int = env.int("SESSION_IDLE_SECONDS", 30 * 60, validate=validate.Range(min=600))
    # The bearer token of /metrics. Empty: /metrics is closed.
    METRICS_TOKEN: str = env.str("METRICS_TOKEN", "")
    # The base address of the portal, for links in notifications. Empty: no links.
    PORTAL_URL: str = env.str("PORTAL_URL", "", validate=BASE_ADDRESS).rstrip("/")
    TRUSTED_PROXY_COUNT: int = env.int("TRUSTED_PROXY_COUNT", 0, validate=validate.Range(min=0))
    DEFAULT_FROM_EMAIL: str = env.str("DEFAULT_FROM_EMAIL", "portal@localhost")
    # Whom to tell about a vulnerability: /.well-known/security.txt.
    SECURITY_CONTACT: str = env.str("SECURITY_CONTACT", f"mailto:{DEFAULT_FROM_EMAIL}", validate=CONTACT)
    email: dict[str, Any] = env.dj_email_url("EMAIL_URL", "console:" if LOCAL else "smtp://localhost:25")
except EnvError as error:
    raise ImproperlyConfigured(f"{error}. docs/configuration.md documents each setting.") from error

for name, value in (("SECRET_KEY", SECRET_KEY), ("ALLOWED_HOSTS", ALLOWED_HOSTS), ("CACHE_URL", cache_url)):
    if not value:
        raise ImproperlyConfigured(f"Set {name}: it is required unless DEMO=1 or DEBUG=1 (docs/configuration.md).")
public_names = [name for name in ALLOWED_HOSTS if not is_local_name(name)]
if LOCAL and not DEMO_EXPOSED and public_names:
    raise ImproperlyConfigured(f"ALLOWED_HOSTS has {', '.join(public_names)}. {DEMO_STAYS_HOME}")
if CELERY_BROKER_URL.startswith("sqs") and not SQS_REGION:
    raise ImproperlyConfigured(
        "Set SQS_REGION, such as eu-central-1, for CELERY_BROKER_URL=sqs:// (docs/configuration.md)."
    )
if UPGRADE_STEADY_SECONDS >= UPGRADE_VALIDATION_SECONDS:
    raise ImproperlyConfigured(
        "UPGRADE_STEADY_SECONDS must be less than UPGRADE_VALIDATION_SECONDS, or no service can be steady in time "
        "(docs/configuration.md)."
    )
if database["ENGINE"] != "django.db.backends.postgresql":
    raise ImproperlyConfigured("DATABASE_URL must name a PostgreSQL database (docs/configuration.md).")
if "EMAIL_BACKEND" not in email:
    raise ImproperlyConfigured("EMAIL_URL must be a URL such as smtp://user:password@host:587 (docs/configuration.md).")

# --- Application ---------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "portal",
    "deployments",
    "upgrades",
    "portal.apps.PortalAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.forms",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "csp",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
]
if DEMO:
    INSTALLED_APPS.append("portal.sandbox")

MIDDLEWARE = [
    "portal.request_id.RequestIdMiddleware",
    "portal.client_ip.ClientIpMiddleware",
    "portal.monitoring.latency.LatencyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "portal.web.headers.HeadersMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "portal.safe_text.SafeTextMiddleware",
    "portal.errors.ErrorMiddleware",
    "portal.web.bodies.BodyMiddleware",
    # Before CommonMiddleware, which checks the Host.
    "portal.monitoring.health.HealthCheckMiddleware",
    "portal.accounts.sessions.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "portal.accounts.person.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "portal.accounts.reauthentication.ReauthenticationMiddleware",
    "portal.accounts.devices.DevicesMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "portal.web.forms.FormBodyMiddleware",
    "portal.audit_middleware.AuditMiddleware",
    "portal.access.AccessMiddleware",
    "portal.elevation.ElevationMiddleware",
]

ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.access.organizations",
            ],
            "builtins": ["portal.templatetags.formatting"],
        },
    },
    {
        # For the rows of long tables alone (portal/web/rows.py): *.jinja.
        "BACKEND": "django.template.backends.jinja2.Jinja2",
        "NAME": "jinja2",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {"environment": "portal.web.rows.environment"},
    },
]
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"

DATABASES = {
    "default": {
        **database,
        "ENGINE": "portal.database",
        "ATOMIC_REQUESTS": False,
        "CONN_MAX_AGE": DATABASE_CONN_MAX_AGE,
        "CONN_HEALTH_CHECKS": True,
    }
}
DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 3)
# Statements are prepared on each connection once they have run often enough, so that PostgreSQL keeps their plans.
DATABASES["default"]["OPTIONS"] |= {"server_side_binding": True, "prepare_threshold": PREPARE_AFTER}
# A request must not wait long for a lock. While a migration waits for one, all later requests of its table wait too.
limits = {
    "statement_timeout": DATABASE_STATEMENT_SECONDS,
    "lock_timeout": DATABASE_LOCK_SECONDS,
    "idle_in_transaction_session_timeout": DATABASE_IDLE_SECONDS,
}
DATABASES["default"]["OPTIONS"]["options"] = " ".join(
    [
        DATABASES["default"]["OPTIONS"].get("options", ""),
        *(f"-c {name}={round(1000 * seconds)}" for name, seconds in limits.items()),
    ]
).strip()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "portal.cache.LocalCache"}
    if cache_url == "locmem://"
    else {
        "BACKEND": "portal.cache.RedisCache",
        "LOCATION": cache_url,  # redis://, rediss:// or unix://
        "OPTIONS": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    }
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False  # the portal speaks English only; to look for translations costs each page 4 % of its CPU
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Locally WhiteNoise serves files through the staticfiles finders, and nothing is collected.
STATIC_ROOT = None if LOCAL else BASE_DIR / "static_root"
WHITENOISE_USE_FINDERS = LOCAL
WHITENOISE_ALLOW_ALL_ORIGINS = False  # no other origin uses the portal's files
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if LOCAL
        else "portal.web.static_files.StaticFilesStorage"
    },
}

DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
FILE_UPLOAD_HANDLERS = ["portal.web.bodies.RefusingUploadHandler"]

EMAIL_BACKEND = email["EMAIL_BACKEND"]
EMAIL_HOST = email["EMAIL_HOST"]
EMAIL_PORT = email["EMAIL_PORT"]
EMAIL_HOST_USER = email["EMAIL_HOST_USER"]
EMAIL_HOST_PASSWORD = email["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS = email["EMAIL_USE_TLS"]
EMAIL_USE_SSL = email["EMAIL_USE_SSL"]
EMAIL_TIMEOUT = 5

# --- People --------------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "portal.User"
AUTHENTICATION_BACKENDS = ["portal.accounts.person.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["email", "name"]},
    },
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "portal.accounts.passwords.GuessablePasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_ADAPTER = "portal.accounts.adapter.AccountAdapter"
ACCOUNT_FORMS = {"login": "portal.accounts.forms.SignInForm"}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
# allauth's own generator copies the address into its table, where it would still be accepted after staff change it.
ACCOUNT_PASSWORD_RESET_TOKEN_GENERATOR = "django.contrib.auth.tokens.PasswordResetTokenGenerator"  # noqa: S105 - a class
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_REAUTHENTICATION_TIMEOUT = 5 * 60
ACCOUNT_SESSION_REMEMBER = True
ALLAUTH_TRUSTED_PROXY_COUNT = TRUSTED_PROXY_COUNT
MFA_FORMS = {
    "authenticate": "portal.accounts.forms.CodeForm",
    "reauthenticate": "portal.accounts.forms.CodeAgainForm",
    "authenticate_webauthn": "portal.accounts.forms.PasskeyStepForm",
    "reauthenticate_webauthn": "portal.accounts.forms.PasskeyAgainForm",
    "login_webauthn": "portal.accounts.forms.PasskeyForm",
    "add_webauthn": "portal.accounts.forms.NewPasskeyForm",
}
MFA_ADAPTER = "portal.accounts.second_factors.MFAAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "Operations portal"
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = LOCAL
USERSESSIONS_TRACK_ACTIVITY = True

SESSION_ENGINE = "portal.accounts.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "portal.errors.csrf_failure"

# --- Security ------------------------------------------------------------------------------------------------------

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = not LOCAL
CSRF_COOKIE_NAME = "csrftoken" if LOCAL else "__Host-csrftoken"
MESSAGES_COOKIE_NAME = "messages" if LOCAL else "__Host-messages"
MESSAGE_STORAGE = "portal.web.notices.NoticeStorage"
if not LOCAL:
    SESSION_COOKIE_NAME = "__Host-sessionid"
    SECURE_HSTS_SECONDS = 2 * 365 * 24 * 60 * 60
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    # The load balancer's health checks speak plain HTTP.
    SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$"]
    if TRUSTED_PROXY_COUNT:
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "connect-src": [SELF],
        # The QR code of the authenticator set-up is a data: image.
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "object-src": [NONE],
        # Firefox and Safari know only the older one.
        "report-uri": "/csp-reports",
        "report-to": "csp",
    }
}

# --- API -----------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["portal.api.authentication.SessionAuthentication"],
    # Every route declares its policy (portal/access.py); AccessMiddleware refuses one that does not.
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "portal.api.negotiation.JSONNegotiation",
    "DEFAULT_PARSER_CLASSES": ["portal.api.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "portal.errors.api_exception_handler",
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Operations portal",
    "DESCRIPTION": "Deployments of AI agents and upgrades of the platform services on Amazon ECS. Sign in with "
    f"`POST /api/v1/auth/login`; unsafe methods need the `{CSRF_COOKIE_NAME}` cookie's value in `X-CSRFToken`. "
    "Deployments and agents are served at `/deployments` and `/agents` as well as under `/api/v1`.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVERS": [{"url": PORTAL_URL or "/"}],
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "PATH_CONVERTER_OVERRIDES": {"any_uuid": {"type": "string", "format": "uuid"}},
    "PREPROCESSING_HOOKS": ["portal.api.schema.leave_out_root_paths"],
    # Choices are inlined where they are used, so that they need no component names.
    "POSTPROCESSING_HOOKS": [
        "portal.api.webhooks.complete_webhooks",
        "portal.api.schema.close_request_bodies",
        "portal.api.schema.describe_reads",
        "portal.api.examples.add_examples",
    ],
    "WEBHOOKS": [
        *(f"upgrades.api.webhooks.{name}" for name in ("started", "ended", "stalled", "overdue", "waiting")),
        "upgrades.api.webhooks.validation_missing",
        "deployments.api.webhooks.failed",
        "deployments.api.webhooks.recovered",
        "portal.api.webhooks.test",
    ],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
}

# --- Work in the background ----------------------------------------------------------------------------------------

# The database is the queue. Messages only speed things up, so they may be lost or delivered twice.
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
# Messages are confirmed before their task runs: if the worker dies, the row's lease decides when it is taken again, so
# that a message that came again earlier would find the row held.
CELERY_TASK_ACKS_LATE = False
# Logged without traceback: portal/worker.py logs an outage of the database in one line.
CELERY_TASK_ANNOTATIONS = {"*": {"throws": (DatabaseError, InterfaceError)}}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_MAX_TASKS_PER_CHILD = 500
CELERY_TASK_TIME_LIMIT = 60
CELERY_TASK_SOFT_TIME_LIMIT = 50
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_WORKER_CONSUMER = "portal.worker:Consumer"
# Without the time-outs a broker that accepts and never answers would hang the request that dispatches (kombu redis:
# socket_timeout is None by default). A message that no worker confirms comes again after visibility_timeout.
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {}
if CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "visibility_timeout": 120,
        "socket_timeout": 5,
        "socket_connect_timeout": 1,
        "max_retries": 1,
    }
elif CELERY_BROKER_URL.startswith("sqs"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "region": SQS_REGION,
        "visibility_timeout": 120,
        # Seconds between two polls, each of which waits 10 s for a message and has a time-out of its own.
        "polling_interval": 0.2,
        "client-config": {"connect_timeout": 1, "read_timeout": 3, "retries": {"total_max_attempts": 1}},
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
        "interval_max": 0,
    }
    if SQS_QUEUE_URL:
        CELERY_BROKER_TRANSPORT_OPTIONS["predefined_queues"] = {"celery": {"url": SQS_QUEUE_URL}}
    else:
        # Not the queue `celery` of another application; and messages older than a minute are ignored anyway.
        CELERY_BROKER_TRANSPORT_OPTIONS["queue_name_prefix"] = "operations-portal-"
        CELERY_BROKER_TRANSPORT_OPTIONS["sqs-creation-attributes"] = {"MessageRetentionPeriod": "120"}
CELERY_TASK_PUBLISH_RETRY = False
# What the scheduler process calls, and its interval in seconds. All run on one thread, so each must return quickly.
# Notifications are sent on other threads, because their receivers may be slow. Named by string: portal imports no app.
SCHEDULE: dict[str, float] = {
    "portal.tasks.record_heartbeats": 5.0,
    "upgrades.tasks.sweep": 0.5,
    "upgrades.tasks.sweep_validations": 2.0,
    "upgrades.tasks.maintain_validations": 30.0,
    "deployments.tasks.sweep": 0.5,
    "portal.tasks.sweep_notifications": 0.5,
    "portal.tasks.delete_old_notifications": 3600.0,
    "portal.tasks.delete_old_idempotency_keys": 3600.0,
    "portal.tasks.delete_ended_tokens": 3600.0,
    "portal.tasks.delete_expired_sessions": 60.0,
    "portal.tasks.write_audit_repeats": 5.0,
    "portal.tasks.end_expired_staff_access": 5.0,
    "portal.tasks.start_audit_verification": 600.0,
    "portal.tasks.delete_old_metrics": 3600.0,
}
# What /metrics reads, in this order (portal/monitoring/prometheus.py).
GAUGES = [
    "portal.monitoring.prometheus.heartbeats",
    "portal.monitoring.counted.collect",
    "upgrades.gauges.gauges",
    "deployments.gauges.gauges",
    "portal.notifications.gauges.gauges",
    "portal.audit_chain.gauges",
    "portal.web.headers.gauges",
]

# What needs attention on the overview: each source finds the items of one organization (portal/web/attention.py).
ATTENTION = ["deployments.pages.attention.FAILED"]
# What charts show as bands: each function returns the changes of one organization (portal/web/observe/changes.py).
CHANGES = ["upgrades.pages.changes.list_changes", "deployments.pages.changes.list_changes"]
# The rows that the overview reads: each function returns query sets by name (portal/web/overview_rows.py).
OVERVIEW = [
    "portal.web.activity.select_recent",
    "deployments.pages.attention.select_rows",
    "upgrades.pages.overview.select_rows",
]
# What the activity page calls the objects of audit rows: by the prefix of their kind (portal/web/activity.py).
SUBJECT_TITLES = {"upgrade.": "upgrades.pages.titles.find_titles"}

# --- Logs ----------------------------------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request_id": {"()": "portal.request_id.RequestIdFilter"},
        "without_traceback": {"()": "portal.aws.log_filter.WithoutTraceback"},
        "without_outages": {"()": "portal.outages.WithoutOutages"},
    },
    "formatters": {
        "json": {"()": "portal.log_lines.JsonFormatter"},
        "text": {
            "()": "portal.log_lines.TextFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s",
        },
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["request_id"]}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "django.request": {"filters": ["without_outages"]},
        # A scanner that asks for other names writes one line each time, without the stack.
        "django.security.DisallowedHost": {"filters": ["without_traceback"]},
        "django.server": {"handlers": [], "propagate": True},
        "gunicorn.error": {"handlers": [], "propagate": True},
        # At DEBUG, each of these logs what it sends or receives.
        "botocore": {"level": "WARNING"},
        "boto3": {"level": "WARNING"},
        "urllib3": {"level": "WARNING"},
        "kombu": {"level": "WARNING"},
        "amqp": {"level": "WARNING"},
        "botocore.credentials": {"filters": ["without_traceback"]},
        "botocore.tokens": {"filters": ["without_traceback"]},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
    },
}
