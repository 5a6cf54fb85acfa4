"""Where one-time notices wait for the person's next page (settings.MESSAGE_STORAGE): a signed cookie of this host only."""

from django.conf import settings
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.messages.storage.session import SessionStorage


class HostCookieStorage(CookieStorage):
    """Django's cookie. Browsers take a `__Host-` cookie only from this very host, with Secure and without Domain."""

    cookie_name = settings.MESSAGES_COOKIE_NAME


class NoticeStorage(FallbackStorage):
    storage_classes = (HostCookieStorage, SessionStorage)
