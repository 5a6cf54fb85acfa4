"""The yardstick: a plain Django REST framework project over the product's tables, as a tutorial would write it.

Django's own session, user and CSRF middlewares and database backend; as the owner of the tables, so that row-level security
costs it nothing.
"""

from portal.settings import *

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",  # which the installed apps require
]
ROOT_URLCONF = "bench.plain.urls"
SESSION_ENGINE = "django.contrib.sessions.backends.db"
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
owner = {name: DATABASE_OWNER[name] for name in ("USER", "PASSWORD")}
DATABASES = {"default": {**DATABASES["default"], **owner, "ENGINE": "django.db.backends.postgresql"}}
REST_FRAMEWORK = REST_FRAMEWORK | {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
}
