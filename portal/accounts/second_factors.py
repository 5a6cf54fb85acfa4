"""The allauth adapter for second factors: the seeds of authenticator apps and recovery codes are sealed.

A seed that was stored before this adapter existed is in plain text until `manage.py reseal` has run.
"""

from allauth.mfa.adapter import DefaultMFAAdapter

from portal.errors import PortalError
from portal.sealing import Purpose, seal, unseal

FERNET_PREFIX = "gAAAA"  # the version byte and the high bytes of the time, in base64; no seed begins like this


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc] # allauth ships no types
    def encrypt(self, text: str) -> str:
        return seal(text, Purpose.MFA)

    def decrypt(self, encrypted_text: str) -> str:
        """Return the seed. Raises PortalError 503 if its key is gone, so that no code is accepted."""
        if not is_sealed(encrypted_text):
            return encrypted_text
        text = unseal(encrypted_text, Purpose.MFA)
        if text is None:
            raise PortalError(
                "second_factor_unreadable",
                "The portal cannot read your second factor, because its SECRET_KEY was changed. Ask the people who run "
                "it to set SECRET_KEY_FALLBACKS, or to remove your second factor.",
                503,
            )
        return text


def is_sealed(text: str) -> bool:
    """Return whether the text is sealed. Seeds are base32 or hexadecimal, so none has the prefix of a sealed text."""
    return text.startswith(FERNET_PREFIX)
