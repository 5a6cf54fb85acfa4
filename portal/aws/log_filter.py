"""A filter for botocore's loggers. Imports no AWS library, because the settings of every process load this module."""

import logging


class WithoutTraceback(logging.Filter):
    """Removes the traceback of a failed credential refresh, which ends with AWS's own error text (see errors.py).

    The line keeps the error's class. The error of the call that needed the credentials has action, code and request id.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            record.msg, record.args = f"{record.getMessage()} {type(record.exc_info[1]).__name__}.", ()
            record.exc_info = record.exc_text = None
        return True
