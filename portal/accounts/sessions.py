"""The session engine (SESSION_ENGINE): Django's, where the session of a request opens the context of its person."""

from typing import Any

from django.contrib.sessions.backends import db

from portal.accounts.person import open_session


class SessionStore(db.SessionStore):
    """Django's sessions in the database. `opens_context` is set for the session of a request, not for one in a list."""

    opens_context = False

    def load(self) -> dict[str, Any]:
        if not self.opens_context or not self.session_key:
            return super().load()
        row = open_session(self.session_key)
        if row is None:
            self._session_key = None
            return {}
        return self.decode(row.session_data)
