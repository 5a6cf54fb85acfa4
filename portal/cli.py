"""The command line of pipelines: `python -m portal.cli`. One file, standard library only, so that it can be copied.

It sends an API token (docs/pipelines.md): from PORTAL_TOKEN with PORTAL_URL, else from the file that `login` writes.
Results go to standard output, progress to standard error. The exit code says how it ended.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.client import HTTPException
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

Json = dict[str, Any]

SUCCESS, FAILED, USAGE, PARTIAL, NOT_VALIDATED, NOT_YET, REFUSED, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 7, 130
EXIT_CODES = """exit codes:
  0  done: the upgrade succeeded, is as far as --for says, or is recorded with --no-wait
  1  FAILED, also when ECS rolled it back      5  still running when --timeout was over
  2  wrong arguments or settings               6  the portal refused the request
  3  PARTIAL: some services advanced           7  the portal did not answer, or something else did
  4  the validation failed                   130  interrupted; the upgrade goes on
"""
VERDICTS = {"SUCCESS": SUCCESS, "FAILED": FAILED, "PARTIAL": PARTIAL}
ENDED = {"SUCCESS", "FAILED", "SKIPPED"}  # of one service
WAITS = ("serving", "done", "validated")
HOLD_SECONDS, ANSWER_SECONDS = 25, 40  # the longest that the portal holds an answer, and that this waits for one
REDIRECTS, OUTAGES = range(300, 400), (429, 500, 502, 503, 504)
TRIES = 4  # of a command, which its Idempotency-Key makes safe to repeat
AGAIN_SECONDS = 5  # between two questions, if the portal does not say
FOLLOW_SECONDS = 3.0
PAGE_LINES, SEEN_LINES = 500, 5000  # the most that the portal returns, and that are remembered as printed
SEARCHED_PAGES = 10  # without --follow. The portal limits how often a person reads earlier lines
LATE = timedelta(minutes=15)  # how long after its time a line may arrive, as on the pages
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}

# What is read of the portal's answers, by type; a tuple lists alternatives. Other members are ignored.
TEXT, NUMBER = (str, None), (int, float, None)
SESSION = {"user": {"email": str}, "organizations": [{"slug": str, "role": str}]}
AGENTS = {"items": [{"id": str, "status": str, "name": str}]}
DEPLOYMENTS = {"items": [{"id": str, "status": str, "agent_name": str, "replicas": int, "running_replicas": NUMBER}]}
LINE = {"id": str, "timestamp": str, "level": TEXT, "message": str}
LOGS = {"items": [LINE], "next_cursor": TEXT, "read_at": str}
ACCEPTED = {"upgrade_id": str, "estimated_time": str, "status_url": str}
COUNTS = {"target_running": NUMBER, "desired_count": NUMBER, "production_weight": NUMBER}
SERVICE = {"service": str, "status": str, "outcome": TEXT, "hook": ({"id": str}, None), "error_message": TEXT, **COUNTS}
UPGRADE = {"upgrade_id": str, "status": str, "validation": str, "message": str, "services": [SERVICE]}
REFUSAL, SETTINGS = {"detail": str, "code": str}, {"url": str, "token": str}


class CliError(Exception):
    """Ends the command with this exit code and a sentence."""

    def __init__(self, code: int, sentence: str, body: Json | None = None) -> None:
        super().__init__(sentence)
        self.code, self.body = code, body


class Unreachable(CliError):
    """The portal did not answer, or asks to come again. `again` is in seconds, None if it did not say when."""

    def __init__(self, sentence: str, again: int | None = None) -> None:
        super().__init__(UNREACHABLE, sentence)
        self.again = again


class NoRedirects(HTTPRedirectHandler):
    """The API never redirects, and a redirect would take the token to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = build_parser().parse_args(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a log line may have what the terminal's encoding lacks
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return INTERRUPTED
    except CliError as error:
        failure = error
    except (OSError, EOFError, RuntimeError) as error:  # a folder that is read-only, no input, no home
        failure = CliError(USAGE, str(error) or "The input ended.")
    if options.json and failure.body:
        write(json.dumps(failure.body))
    write(f"portal: {printable(str(failure))}", sys.stderr)
    return failure.code


# --- arguments -----------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="portal",
        description="Deploy and upgrade through the operations portal.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Callable[[argparse.Namespace], int], help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=help_text, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--json", action="store_true", help="print the portal's JSON, and no progress")
        command.set_defaults(run=run)
        return command

    login = add("login", run_login, "store the address and a token, read from the terminal or standard input")
    login.add_argument("url", help="such as https://portal.example.com")
    add("logout", run_logout, "forget the stored token; revoke it on the page of your tokens")
    agents = add("agents", run_agents, "list agents")
    deployments = add("deployments", run_deployments, "list deployments")
    deployments.add_argument("--status", help="only those with this status")
    for listing in (agents, deployments):
        listing.add_argument("--limit", type=int, default=50)
    logs = add("logs", run_logs, "print a deployment's log lines, oldest first")
    logs.add_argument("deployment")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    logs.add_argument("--level", type=str.upper, choices=LEVELS, help="only this level")
    logs.add_argument("--limit", type=int, default=100, help="how many (100); with --follow: how many to begin with")
    add_upgrade_commands(add)
    return parser


def add_upgrade_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    upgrade = add("upgrade", run_upgrade, "upgrade a platform service, and wait")
    upgrade.add_argument("service", help="agent, orchestrator, customer-portal or all")
    upgrade.add_argument("--version", default="latest")
    upgrade.add_argument("--force", action="store_true", help="replace all tasks even if it already runs this version")
    wait = add("wait", run_wait, "wait for an upgrade")
    rollback = add("rollback", run_rollback, "roll an upgrade back, and wait")
    approve = add("approve", run_approve, "continue a paused rollout, or roll it back; needs a personal token")
    approve.add_argument("--service", help="needed if several services wait")
    approve.add_argument("--hook-id", help="the pause that was reviewed; default: the one that waits now")
    approve.add_argument("--action", choices=("continue", "rollback"), default="continue")
    for command in (wait, rollback, approve):
        command.add_argument("upgrade_id")
    for command in (upgrade, rollback, approve):
        command.add_argument("--reason", default="")
    for command in (upgrade, rollback):
        command.add_argument("--override-reason", default="", help="why to start despite failed checks")
        command.add_argument("--idempotency-key", default=None, help="such as the run id of the pipeline")
        command.add_argument("--no-wait", action="store_true", help="end once it is recorded")
    for command in (upgrade, rollback, wait):
        command.add_argument("--for", dest="until", choices=WAITS, default="done", help="how far to wait (done)")
        command.add_argument("--timeout", type=int, default=3600, help="seconds to wait at most (3600)")


# --- commands ------------------------------------------------------------------------------------------------------


def run_login(options: argparse.Namespace) -> int:
    """Check the token and store it, readable by its owner only."""
    token = os.environ.get("PORTAL_TOKEN") or (
        getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()
    )
    portal = Portal(options.url, token.strip())
    session = portal.get("/auth/session", SESSION)
    path = get_settings_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"url": portal.url, "token": portal.token}, file)
    new.replace(path)
    named = ", ".join(f"{each['slug']} ({each['role']})" for each in session["organizations"])
    return show(options, session, [f"Signed in as {session['user']['email']}: {named}."])


def run_logout(options: argparse.Namespace) -> int:
    get_settings_path().unlink(missing_ok=True)
    return SUCCESS


def run_agents(options: argparse.Namespace) -> int:
    page = Portal.from_settings().get("/agents", AGENTS, limit=options.limit)
    return show(options, page, [f"{each['id']}  {each['status']:8} {each['name']}" for each in page["items"]])


def run_deployments(options: argparse.Namespace) -> int:
    page = Portal.from_settings().get("/deployments", DEPLOYMENTS, limit=options.limit, status=options.status)
    lines = [
        f"{each['id']}  {each['status']:9} {each['running_replicas'] or 0} of {each['replicas']}  {each['agent_name']}"
        for each in page["items"]
    ]
    return show(options, page, lines)


def run_logs(options: argparse.Namespace) -> int:
    """Print log lines until there are no more, or with --follow until it is interrupted."""
    portal = Portal.from_settings()
    for line in follow_lines(portal, options) if options.follow else read_newest(portal, options):
        text = f"{line['timestamp']} {line['level'] or '-':8} {printable(line['message'])}"
        if not write(json.dumps(line) if options.json else text):
            break
    return SUCCESS


def read_newest(portal: Portal, options: argparse.Namespace) -> Iterator[Json]:
    """Yield the newest lines that match, oldest first. Search SEARCHED_PAGES at most."""
    found: list[Json] = []
    cursor = None
    for _ in range(SEARCHED_PAGES):
        limit = min(options.limit - len(found), PAGE_LINES)
        page = read_page(portal, options, limit=limit, level=options.level, cursor=cursor)
        found, cursor = found + page["items"], page["next_cursor"]
        if cursor is None or len(found) >= options.limit:
            break
    else:
        progress(options, "Earlier lines were not searched.")
    yield from reversed(found)


def follow_lines(portal: Portal, options: argparse.Namespace) -> Iterator[Json]:
    """Yield the newest lines and then each new one once, also if it is late. Outages after the first answer are waited out.

    The level is chosen here: a reading of all lines always meets one that was read before, and so has no gap.
    """
    page = read_page(portal, options, limit=min(options.limit, PAGE_LINES))
    items: list[Json] = page["items"]
    newest = as_time(items[0]["timestamp"] if items else page["read_at"])
    begin = newest - LATE
    if items and page["next_cursor"]:  # the lines before the first one were not asked for
        begin = as_time(items[-1]["timestamp"]) + timedelta(milliseconds=1)
    seen: dict[str, None] = {}
    while True:
        for item in reversed(items):
            if item["id"] not in seen:
                seen[item["id"]] = None
                newest = max(newest, as_time(item["timestamp"]))
                if options.level in (None, item["level"]):
                    yield item
        for old in list(seen)[:-SEEN_LINES]:
            del seen[old]
        time.sleep(FOLLOW_SECONDS)
        items = read_back_to(portal, options, max(begin, newest - LATE), seen)


def read_back_to(portal: Portal, options: argparse.Namespace, since: datetime, seen: dict[str, None]) -> list[Json]:
    """Return the lines since then, newest first: the page whose oldest line was seen is the last."""
    found: list[Json] = []
    cursor = None
    while True:
        try:
            page = read_page(portal, options, limit=PAGE_LINES, since=since.isoformat(), cursor=cursor)
        except Unreachable as error:
            progress(options, f"{error} Asking again.")
            time.sleep(error.again or FOLLOW_SECONDS)
            continue
        items, cursor = page["items"], page["next_cursor"]
        found += items
        if cursor is None or (items and items[-1]["id"] in seen):
            return found


def read_page(portal: Portal, options: argparse.Namespace, **query: Any) -> Json:
    return portal.get(f"/deployments/{quote(options.deployment, safe='')}/logs", LOGS, **query)


def as_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
    except ValueError as error:
        raise CliError(UNREACHABLE, f"{text} is no time that the portal gives. Check the address.") from error


def run_upgrade(options: argparse.Namespace) -> int:
    asked = {"service": options.service, "version": options.version, "force_new_deployment": options.force}
    return trigger(options, "/deployments/upgrade", asked | reasons(options))


def run_rollback(options: argparse.Namespace) -> int:
    return trigger(options, f"{upgrade_path(options)}/rollback", reasons(options))


def reasons(options: argparse.Namespace) -> Json:
    return {"reason": options.reason, "override_reason": options.override_reason}


def trigger(options: argparse.Namespace, path: str, asked: Json) -> int:
    """Send the command, then wait. Ctrl-C ends the waiting only."""
    portal = Portal.from_settings()
    accepted = portal.post(path, asked, ACCEPTED, key=options.idempotency_key or str(uuid.uuid4()))
    upgrade_id = accepted["upgrade_id"]
    if options.no_wait:
        return show(options, accepted, [upgrade_id])
    progress(options, f"{upgrade_id} recorded: {accepted['estimated_time']}, {portal.url}{accepted['status_url']}")
    options.upgrade_id = upgrade_id
    return wait_for(portal, options)


def run_wait(options: argparse.Namespace) -> int:
    return wait_for(Portal.from_settings(), options)


def run_approve(options: argparse.Namespace) -> int:
    """Decide at the pause that waits now, or at the one that was reviewed. The portal refuses it if another waits."""
    portal, path = Portal.from_settings(), upgrade_path(options)
    waiting = [
        each
        for each in portal.get(path, UPGRADE)["services"]
        if each["outcome"] == "waiting_for_decision" and each["hook"] and options.service in (None, each["service"])
    ]
    if len(waiting) != 1:
        names = ", ".join(each["service"] for each in waiting)
        raise CliError(
            REFUSED, f"Several services wait: {names}. Name one with --service." if names else "Nothing waits."
        )
    hook = options.hook_id or waiting[0]["hook"]["id"]
    asked = {"service": waiting[0]["service"], "hook_id": hook, "action": options.action, "reason": options.reason}
    record = portal.post(f"{path}/continue", asked, {})
    return show(options, record, [f"{asked['service']}: {options.action} recorded."])


# --- waiting -------------------------------------------------------------------------------------------------------


def wait_for(portal: Portal, options: argparse.Namespace) -> int:
    """Ask until the upgrade is as far as `--for` says, or `--timeout` is over. Outages are waited out.

    Returns the exit code of its verdict.
    """
    ends_at = time.monotonic() + options.timeout
    record: Json | None = None
    shown: dict[str, str] = {}
    failure: Unreachable | None = None
    while True:
        hold = max(1, min(HOLD_SECONDS, int(ends_at - time.monotonic())))
        try:
            record, failure = portal.get(upgrade_path(options), UPGRADE, wait=options.until, timeout=hold), None
            again = portal.again or AGAIN_SECONDS
            show_changes(options, record, shown)
            if is_reached(record, options.until):
                return show_verdict(options, record)
        except Unreachable as error:
            failure, again = error, error.again or AGAIN_SECONDS
            progress(options, f"{error} Asking again.")
        if time.monotonic() + again >= ends_at:
            break
        time.sleep(again)
    if failure:
        raise failure
    show(options, record or {}, [])
    progress(options, f"{options.upgrade_id} is still running after {options.timeout} s.")
    return NOT_YET


def show_changes(options: argparse.Namespace, record: Json, shown: dict[str, str]) -> None:
    """Print a line for each service whose state has changed."""
    for each in record["services"]:
        line = describe(each)
        if shown.get(each["service"]) != line:
            shown[each["service"]] = line
            progress(options, line)
    if record["validation"] != "none" and shown.get("") != record["validation"]:
        shown[""] = record["validation"]
        progress(options, f"validation: {record['validation']}")


def describe(service: Json) -> str:
    parts = [f"{service['service']}: {service['status']}"]
    if service["outcome"]:
        parts.append(service["outcome"].replace("_", " "))
    if service["status"] == "IN_PROGRESS":
        parts.append(f"{service['target_running'] or 0} of {service['desired_count'] or 0} new tasks run")
        if service["production_weight"] is not None:
            parts.append(f"{service['production_weight']} % of the traffic")
    if service["hook"] and service["outcome"] == "waiting_for_decision":
        parts.append(f"hook_id {service['hook']['id']}")
    if service["error_message"]:
        parts.append(service["error_message"])
    return ", ".join(parts)


def show_verdict(options: argparse.Namespace, record: Json) -> int:
    show(options, record, [f"{record['upgrade_id']}: {record['status']}. {record['message']}"])
    return find_exit_code(record, options.until)


def is_reached(record: Json, until: str) -> bool:
    """Return whether the upgrade is as far as is waited for, or has ended otherwise. A status of a later portal is neither.

    >>> is_reached({"status": "SUCCESS", "validation": "needed"}, "validated")
    False
    """
    if record["status"] in VERDICTS:
        return until != "validated" or record["validation"] != "needed"
    services = record["services"] if until == "serving" else []
    return bool(services) and all(each["status"] in ENDED or each["outcome"] == "baking" for each in services)


def find_exit_code(record: Json, until: str) -> int:
    """Return the exit code of an upgrade that is as far as was waited for.

    >>> find_exit_code({"status": "SUCCESS", "validation": "failed"}, "validated")
    4
    >>> find_exit_code({"status": "IN_PROGRESS", "validation": "none"}, "serving")
    0
    """
    code = VERDICTS.get(record["status"], SUCCESS)
    if code == SUCCESS and until == "validated" and record["validation"] == "failed":
        return NOT_VALIDATED
    return code


# --- the portal ----------------------------------------------------------------------------------------------------


class Portal:
    """The API with a token. `again`: the Retry-After of the last answer in seconds, None without one."""

    def __init__(self, url: str, token: str) -> None:
        if not is_address(url):
            raise CliError(USAGE, f"{url} is no address such as https://portal.example.com.")
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise CliError(USAGE, "The token is sent over https only, except to this machine.")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise CliError(USAGE, "There is no token, or it has characters that no token has.")
        self.url, self.token = url.rstrip("/"), token
        self.again: int | None = None

    @classmethod
    def from_settings(cls) -> Portal:
        """Return the portal of the environment, else of the file that `login` wrote."""
        url, token = os.environ.get("PORTAL_URL"), os.environ.get("PORTAL_TOKEN")
        if url and token:
            return cls(url, token)
        path = get_settings_path()
        stored: Any = read_json(path.read_bytes()) if path.exists() else None
        if not fits(stored, SETTINGS):
            raise CliError(USAGE, "Set PORTAL_URL and PORTAL_TOKEN, or run `login`.")
        return cls(url or stored["url"], token or stored["token"])

    def get(self, path: str, shape: Json, **query: Any) -> Json:
        given = urlencode({name: value for name, value in query.items() if value is not None})
        return self.send("GET", f"{path}?{given}" if given else path, shape)

    def post(self, path: str, body: Json, shape: Json, *, key: str | None = None) -> Json:
        """Send a command. With a key it is repeated after an outage: the portal executes it once."""
        for tried in range(1, TRIES + 1):
            try:
                return self.send("POST", path, shape, body, key)
            except Unreachable as error:
                if key is None or tried == TRIES:
                    raise
                time.sleep(min(error.again or tried, 60))
        raise AssertionError("unreachable")

    def send(self, method: str, path: str, shape: Json, body: Json | None = None, key: str | None = None) -> Json:
        """Return the portal's answer. *Raises* Unreachable if there is none, or one that does not have this shape."""
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json", "User-Agent": "portal-cli/1"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/api/v1{path}", data=data, headers=headers, method=method)  # noqa: S310 - checked above
        try:
            with build_opener(NoRedirects).open(request, timeout=ANSWER_SECONDS) as answer:
                self.again = read_seconds(answer.headers.get("Retry-After"))
                text = answer.read()
        except HTTPError as error:
            with error:
                raise self.read_refusal(error) from error
        except (URLError, OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(f"{self.url} did not answer: {reason}.") from error
        answered = read_json(text)
        if not fits(answered, shape):
            raise Unreachable(f"{self.url} answered, but not as the portal does. Check the address.")
        return dict(answered)

    def read_refusal(self, error: HTTPError) -> CliError:
        """Return the error that was answered. The portal's refusal is final; an outage or a limit may end."""
        if error.code in REDIRECTS:
            place = error.headers.get("Location")
            return CliError(UNREACHABLE, f"{self.url} leads to {place}. Give the portal's own address.")
        try:
            body = read_json(error.read())
        except (OSError, HTTPException):
            body = None
        if fits(body, REFUSAL):
            refused = CliError(REFUSED, describe_refusal(body), body)
        else:
            sentence = f"{self.url} answered HTTP {error.code}, but not as the portal does. Check the address."
            refused = CliError(UNREACHABLE, sentence)
        if error.code in OUTAGES:
            return Unreachable(str(refused), read_seconds(error.headers.get("Retry-After")))
        return refused


def is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no number as the port, or no address within brackets
        return False
    return is_whole and not (parts.query or parts.username) and url.isprintable() and " " not in url


def read_json(text: bytes) -> Any:
    """Return the value; None if it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def fits(value: Any, shape: Any) -> bool:
    """Return whether the value has this shape.

    >>> fits({"items": [{"id": "1"}]}, {"items": [{"id": (str, None)}]}), fits([1], {})
    (True, False)
    """
    if isinstance(shape, tuple):
        return any(fits(value, each) for each in shape)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(key in value and fits(value[key], each) for key, each in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(each, shape[0]) for each in value)
    return value is None if shape is None else isinstance(value, shape)


def describe_refusal(body: Json) -> str:
    """Return what is wrong with each field, else the sentence of the portal, which only names the fields."""
    errors = body["errors"].items() if fits(body.get("errors"), {}) else []
    fields = [f"{name}: {' '.join(sentences)}" for name, sentences in errors if fits(sentences, [str])]
    return str(" ".join(fields) or body["detail"])


def read_seconds(text: str | None) -> int | None:
    """Return Retry-After in seconds, an hour at most; None if it says no number."""
    return min(int(text[:9]), 3600) if text and text.isascii() and text.isdecimal() else None


def get_settings_path() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "operations-portal" / "cli.json"


def upgrade_path(options: argparse.Namespace) -> str:
    return f"/deployments/upgrade/{quote(options.upgrade_id, safe='')}"


# --- output --------------------------------------------------------------------------------------------------------


def show(options: argparse.Namespace, body: Json, lines: list[str]) -> int:
    """Print the result: the portal's JSON or lines for people."""
    for line in [json.dumps(body)] if options.json else lines:
        write(printable(line))
    return SUCCESS


def progress(options: argparse.Namespace, line: str) -> None:
    if not options.json:
        write(f"{time.strftime('%H:%M:%S')} {printable(line)}", sys.stderr)


def write(line: str, stream: TextIO | None = None) -> bool:
    """Print the line. Return False if the reader has ended, as in `| head`, which changes no verdict."""
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


def printable(text: str) -> str:
    """Return the text without control characters, which a log line could use to change the terminal.

    >>> printable("ok\\x1b[2J")
    'ok?[2J'
    """
    return "".join(each if each.isprintable() else " " if each in "\t\n" else "?" for each in text)


if __name__ == "__main__":
    sys.exit(main())
