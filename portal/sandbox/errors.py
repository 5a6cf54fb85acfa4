"""Errors with AWS's codes and texts. The API layer turns them into replies."""


class AwsError(Exception):
    """An AWS error with code and message. `code` is for example `ServiceNotFoundException`."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def invalid_parameter(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message)


def service_not_found() -> AwsError:
    return AwsError("ServiceNotFoundException", "Service not found.")


def service_not_active() -> AwsError:
    return AwsError("ServiceNotActiveException", "Service was not ACTIVE.")
