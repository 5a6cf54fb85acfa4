"""Keeps AWS's error texts and credentials out of the log. Imports no AWS library: every process's settings load this."""

import logging
import re
from collections.abc import Iterator

from portal.credential_shapes import mask_credentials

# The start of a botocore error. AWS's own text follows, also over several lines.
AWS_TEXT = re.compile(r"(An error occurred \([\w.:-]{1,100}\) when calling the \w{1,100} operation)[^\r\n]*")


class WithoutTraceback(logging.Filter):
    """Removes the traceback of a failed credential refresh, which ends with AWS's own error text (see errors.py).

    The line keeps the error's class. The error of the call that needed the credentials has action, code and request id.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            record.msg, record.args = f"{record.getMessage()} {type(record.exc_info[1]).__name__}.", ()
            record.exc_info = record.exc_text = None
        return True


def make_safe(text: str, error: BaseException | None) -> str:
    """Return a record's text without AWS's error texts, and with everything that looks like a credential masked.

    Catches what is raised outside portal/aws: by Celery's broker on Amazon SQS, or by a library that logs what it sends.
    """
    for raised in chain_of(error):
        if type(raised).__module__.startswith("botocore.") and str(raised):
            text = text.replace(str(raised), AWS_TEXT.sub(r"\1", str(raised).partition("\n")[0]))
    return mask_credentials(AWS_TEXT.sub(r"\1", text))


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from or during."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
