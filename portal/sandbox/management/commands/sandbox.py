"""`manage.py sandbox`: inspects the local AWS and changes its behaviour through the control API at AWS_ENDPOINT_URL."""

import argparse
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

Json = dict[str, Any]

FAULT_TEXTS = (
    *("account", "region", "cluster", "service", "action", "family", "reason", "code", "message"),
    *("stage", "container"),
)
FAULT_NUMBERS = ("times", "seconds", "factor", "exit-code", "task-count", "status")


class Command(BaseCommand):
    help = "Inspect the local AWS (AWS_ENDPOINT_URL) and inject faults into it."
    # They import every page and API, which takes longer than the command itself. It needs no database either.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        subcommands = parser.add_subparsers(dest="what", required=True, parser_class=argparse.ArgumentParser)
        subcommands.add_parser("status", help="show services with their task counts, the clock and the faults")
        subcommands.add_parser("faults", help="list the active faults")
        subcommands.add_parser("reset", help="delete all state")
        subcommands.add_parser("seed", help="create the demo's clusters, services and images")
        self._add_fault_arguments(subcommands.add_parser("fault", help="add or clear faults"))
        self._add_platform_arguments(
            subcommands.add_parser("platform", help="make endpoints of the platform unhealthy")
        )
        inbox = subcommands.add_parser("inbox", help="show the messages sent to the webhook at /_sandbox/inbox/<name>")
        inbox.add_argument("name")
        inbox.add_argument("--answer", type=int, metavar="STATUS", help="answer with this status from now on")
        inbox.add_argument("--times", type=int, help="for this many deliveries only")
        inbox.add_argument("--seconds", type=float, help="wait this long before answering")
        inbox.add_argument("--clear", action="store_true")
        ledger = subcommands.add_parser("ledger", help="list the write calls, oldest first")
        for name in ("account", "region", "action", "cluster", "service", "error"):
            ledger.add_argument(f"--{name}")
        ledger.add_argument("--since", type=int, help="only entries after this sequence number")
        clock = subcommands.add_parser("clock", help="show or change the clock")
        clock.add_argument("--advance", type=float, dest="advance_seconds", metavar="SECONDS")
        clock.add_argument("--speed", type=float)
        clock.add_argument("--freeze", action="store_const", const=True, dest="frozen")
        clock.add_argument("--unfreeze", action="store_const", const=False, dest="frozen")
        throttling = subcommands.add_parser("throttling", help="turn AWS's request limits on or off")
        throttling.add_argument("switch", choices=("on", "off"))
        throttling.add_argument("--scale", type=float)

    def _add_fault_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="fault_action", required=True)
        add = actions.add_parser(
            "add", help="add a fault, e.g. fault add crash --service acme-prod-agent-service --times 1"
        )
        add.add_argument("kind")
        for name in FAULT_TEXTS:
            add.add_argument(f"--{name}")
        for name in FAULT_NUMBERS:
            add.add_argument(f"--{name}", type=float if name in ("seconds", "factor") else int)
        add.add_argument("--alarm-names", nargs="+")
        add.add_argument("--rollbacks", action="store_const", const=True, help="apply to rollbacks as well")
        clear = actions.add_parser("clear", help="clear one fault by id, or all faults")
        clear.add_argument("id", nargs="?")

    def _add_platform_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="platform_action", required=True)
        actions.add_parser("list", help="list the unhealthy parts, or what can be made unhealthy")
        switch = actions.add_parser("set", help="set a status, e.g. platform set acme-prod provider/openai unhealthy")
        switch.add_argument("stack")
        switch.add_argument("part", help="a service, mcp, component/<name>, connector/<name> or provider/<name>")
        switch.add_argument("status", help="`healthy` resets it")
        switch.add_argument("--message", help="the reason given in the response")
        switch.add_argument("--seconds", type=float, help="the delay of `slow`")
        clear = actions.add_parser("clear", help="reset all parts of one stack, or of all stacks")
        clear.add_argument("stack", nargs="?")

    def handle(self, *_args: Any, **options: Any) -> None:
        handler = getattr(self, f"_{options['what']}")
        handler(options)

    def _status(self, _options: Json) -> None:
        clock = call("GET", "clock")
        frozen = ", frozen" if clock["frozen"] else ""
        self.stdout.write(f"clock {clock_text(clock['now'])}, speed {clock['speed']}{frozen}")
        for service in call("GET", "state")["services"]:
            self.stdout.write(
                f"{service['account']} {service['region']} {service['cluster']} {service['name']}: {service['status']}, "
                f"{service['running']}/{service['desired']} running, {service['pending']} pending, "
                f"{service['task_definition'].rsplit('/', 1)[-1]}, {service['service_deployment_status']}"
            )
        self._faults(_options)

    def _faults(self, _options: Json) -> None:
        faults = call("GET", "faults")["faults"]
        if not faults:
            self.stdout.write("no faults")
        for fault in faults:
            self.stdout.write(fault_text(fault))

    def _fault(self, options: Json) -> None:
        if options["fault_action"] == "clear":
            query = f"?{urllib.parse.urlencode({'id': options['id']})}" if options["id"] else ""
            self.stdout.write(f"cleared {call('DELETE', f'faults{query}')['removed']}")
            return
        names = ("kind", "rollbacks", "alarm_names", *FAULT_TEXTS, *(name.replace("-", "_") for name in FAULT_NUMBERS))
        body = {name: options[name] for name in names if options.get(name) is not None}
        self.stdout.write(fault_text(call("POST", "faults", body)["fault"]))

    def _platform(self, options: Json) -> None:
        if options["platform_action"] == "list":
            platform = call("GET", "platform")
            for switch in platform["switches"]:
                self.stdout.write(switch_text(switch))
            if not platform["switches"]:
                self.stdout.write("all healthy; parts and their other statuses:")
                for part, statuses in platform["parts"].items():
                    self.stdout.write(f"  {part}: {', '.join(statuses)}")
        elif options["platform_action"] == "clear":
            query = f"?{urllib.parse.urlencode({'stack': options['stack']})}" if options["stack"] else ""
            self.stdout.write(f"cleared {call('DELETE', f'platform{query}')['removed']}")
        else:
            names = ("stack", "part", "status", "message", "seconds")
            body = {name: options[name] for name in names if options[name] is not None}
            self.stdout.write(switch_text(call("POST", "platform", body)["switch"]))

    def _inbox(self, options: Json) -> None:
        path = f"inbox/{urllib.parse.quote(options['name'], safe='')}"
        if options["clear"]:
            self.stdout.write(f"cleared {call('DELETE', path)['removed']}")
        elif options["answer"] is not None:
            body = {"status": options["answer"], "times": options["times"], "seconds": options["seconds"]}
            call("PUT", path, {name: value for name, value in body.items() if value is not None})
            self.stdout.write(f"{options['name']} answers {options['answer']}")
        else:
            for message in call("GET", path)["messages"]:
                self.stdout.write(f"{clock_text(message['received_at'])}, answered {message['answered']}")
                for name, value in sorted(message["headers"].items()):
                    self.stdout.write(f"  {name}: {value}")
                self.stdout.write(f"  {message['body']}")

    def _ledger(self, options: Json) -> None:
        names = ("account", "region", "action", "cluster", "service", "error", "since")
        filters = {name: options[name] for name in names if options.get(name) is not None}
        for entry in call("GET", f"ledger?{urllib.parse.urlencode(filters)}")["entries"]:
            outcome = entry["error"] or entry["deployment_id"] or "ok"
            effect = "" if entry["effect"] else ", no effect"
            lost = "" if entry["delivered"] else ", reply lost"
            where = "/".join(str(entry[name]) for name in ("account", "region", "cluster", "service") if entry[name])
            moment = clock_text(entry["time"])
            self.stdout.write(f"{entry['sequence']} {moment} {entry['action']} {where}: {outcome}{effect}{lost}")

    def _clock(self, options: Json) -> None:
        body = {name: options[name] for name in ("advance_seconds", "speed", "frozen") if options[name] is not None}
        clock = call("POST", "clock", body) if body else call("GET", "clock")
        self.stdout.write(f"{clock_text(clock['now'])}, speed {clock['speed']}{', frozen' if clock['frozen'] else ''}")

    def _throttling(self, options: Json) -> None:
        body: Json = {"enabled": options["switch"] == "on"}
        if options["scale"] is not None:
            body["scale"] = options["scale"]
        reply = call("POST", "throttling", body)
        self.stdout.write(f"throttling {'on' if reply['enabled'] else 'off'}, scale {reply['scale']}")

    def _reset(self, _options: Json) -> None:
        call("POST", "reset", {})
        self.stdout.write("reset: the local AWS is empty")

    def _seed(self, _options: Json) -> None:
        call("POST", "seed", {"demo": True})
        self.stdout.write("seeded the demo")


def call(method: str, path: str, body: Json | None = None) -> Json:
    """Call the control API. Raises CommandError with a readable message if that fails."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "").rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise CommandError("AWS_ENDPOINT_URL is not set to an http URL. Set it to the address of the local AWS.")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{endpoint}/_sandbox/{path}", data=data, method=method)  # noqa: S310 - http, as checked above
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310 - http, as checked above
            return dict(json.loads(reply.read()))
    except urllib.error.HTTPError as error:
        with error:
            raise CommandError(refusal(error)) from error
    except OSError as error:
        raise CommandError(f"Cannot reach the local AWS at {endpoint}: {error}. Is it running?") from error
    except ValueError as error:
        raise CommandError(f"{endpoint} is not the local AWS: its response is not JSON.") from error


def refusal(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError):
        return f"{error.url} is not the local AWS: it responded with {error.code}."


def fault_text(fault: Json) -> str:
    details = " ".join(f"{name}={value}" for name, value in fault.items() if show(name, value))
    return f"{fault['id']} {fault['kind']} {details}".rstrip()


def switch_text(switch: Json) -> str:
    reason = f" ({switch['message']})" if switch["message"] else ""
    return f"{switch['stack']} {switch['part']}: {switch['status']}{reason}"


def show(name: str, value: Any) -> bool:
    return name not in ("id", "kind") and value not in (None, False) and (name, value) != ("action", "*")


def clock_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
