"""A filter for botocore's loggers. Imports nothing of AWS: the settings name it, and every process reads them."""

import logging


class WithoutTraceback(logging.Filter):
    """Drops the traceback of a failed renewal of credentials, which ends with AWS's own error text (see errors.py).

    The line keeps the kind of the error; action, code and request id come with the error of the call that needed them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            record.msg, record.args = f"{record.getMessage()} {type(record.exc_info[1]).__name__}.", ()
            record.exc_info = record.exc_text = None
        return True
