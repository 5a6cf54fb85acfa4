"""Parsing of raw log lines: levels, fields, and removal of all that could harm a page or a terminal."""

import json
import time
from typing import Any

import pytest

from portal.cloudwatch.log_lines import LEVELS, MAX_LINE, read_line
from portal.safe_text import safe_text


@pytest.mark.parametrize(
    ("raw", "level"),
    [
        ("2026-11-21 10:00:00 ERROR pool exhausted", "ERROR"),
        ("[WARN] slow", "WARNING"),
        ("level=info WARNING: x", "WARNING"),
        ("FATAL out of memory", "CRITICAL"),
        ("TRACE x", "DEBUG"),
        ("an error occurred", None),
        ("INFORMATIONAL text", None),
        ("x" * 200 + " ERROR", None),
        ('{"level": "warn", "msg": "slow"}', "WARNING"),
        ('{"severity": "CRITICAL", "message": "x"}', "CRITICAL"),
        ('{"level": 50, "msg": "pino"}', "ERROR"),
        ('{"level": ["ERROR"], "msg": "x"}', None),
        ('{"msg": "x"}', None),
        ('time="2026-11-28T10:00:00Z" level=error msg="x"', "ERROR"),
        ("time=2026-11-28T10:00:00Z level=WARN msg=x", "WARNING"),
        ('level=info msg="retried after ERROR"', "INFO"),
        ("2026/11/28 10:00:00 [error] 29#29: x", "ERROR"),
        ("2026/11/28 10:00:00 [emerg] 1#1: x", "CRITICAL"),
        ("[warn] x", "WARNING"),
        ("error: x", "ERROR"),
        ("Error: Cannot find module 'x'", "ERROR"),
        ("fail: App.Server[13]", "ERROR"),
        ("crit: App.Server[13]", "CRITICAL"),
        ("E1128 10:00:00.1 1 reflector.go:147] x", "ERROR"),
        ("I1128 10:00:00.1 1 main.go:1] ERROR rate 0", "INFO"),
        ("2026-11-28T10:00:00Z\terror\tmain.go:5\tx", "ERROR"),
        ("2026-11-28 10:00:00 UTC [29] ERROR:  relation", "ERROR"),
        ("ERROR:root:x", "ERROR"),
        ("GET /search?q=ERROR 200 12ms", None),
        ('10.0.0.1 - - "GET /ERROR HTTP/1.1" 200', None),
        ("3 error codes were read", None),
        ("users: [alert] is a name", None),
        ('{"@l": "Error", "@mt": "m"}', "ERROR"),
        ('{"Level": "Error", "Message": "m"}', "ERROR"),
        ('{"@level": "error", "@message": "m"}', "ERROR"),
        ('{"log": {"level": "ERROR"}, "message": "m"}', "ERROR"),
        ('{"severityText": "ERROR", "body": "m"}', "ERROR"),
        ('{"level": 35, "severity": "error", "msg": "m"}', "ERROR"),
        ("[10:00:00 INF] x", "INFO"),
        ("[10:00:00 FTL] x", "CRITICAL"),
        ("[2026-11-28 10:00:00 +00:00 DBG App.Server] x", "DEBUG"),
        ("2026-11-28 10:00:00.123 +00:00 [VRB] x", "DEBUG"),
        ("[WRN] x", "WARNING"),
        ("10:00AM ERR x", "ERROR"),
        ("2026-11-28T10:00:00Z INF x", "INFO"),
        ("[2026-11-28 10:00:00,123: ERROR/MainProcess] x", "ERROR"),
        ("[2026-11-28 10:00:00] production.ERROR: x", "ERROR"),
        ("[2026-11-28T10:00:00.123456+00:00] app.CRITICAL: x", "CRITICAL"),
        ("t=2026-11-28T10:00:00+0000 lvl=eror msg=x", "ERROR"),
        ("lvl=dbug msg=x", "DEBUG"),
        ("EROR[11-28|10:00:00] x", "ERROR"),
        ('{"level": "eror", "msg": "x"}', "ERROR"),
        ('{"lvl": "crit", "msg": "x"}', "CRITICAL"),
        ("thread 'main' panicked at src/main.rs:1:1:", "CRITICAL"),
        ("thread 'tokio-runtime-worker' (7) panicked at src/main.rs:1:1:", "CRITICAL"),
        ("2026/11/28 10:00:00 http: panic serving 10.0.0.1:4: boom", "CRITICAL"),
        ("fatal error: all goroutines are asleep - deadlock!", "CRITICAL"),
        ("PHP Fatal error:  Uncaught Exception: x", "CRITICAL"),
        ("[28-Nov-2026 10:00:00 UTC] PHP Parse error:  x", "ERROR"),
        ("NOTICE: PHP message: PHP Fatal error:  x", "CRITICAL"),
        ("PHP Warning:  Undefined variable $x", "WARNING"),
        ('{"severityNumber": 4, "body": "m"}', "DEBUG"),
        ('{"severityNumber": 9, "body": "m"}', "INFO"),
        ('{"severityNumber": 16, "body": "m"}', "WARNING"),
        ('{"severity_number": 17, "body": "m"}', "ERROR"),
        ('{"severityText": "custom", "severityNumber": 24, "body": "m"}', "CRITICAL"),
        ('{"severityNumber": 25, "body": "m"}', None),
        ('{"severityNumber": true, "body": "m"}', None),
        ("no error found", None),
        ("INF files were read", None),
        ("read [3 INF files]", None),
        ("the log of production.ERROR: none", None),
        ("a thread panicked at noon", None),
        ("this PHP page has a fatal error: none", None),
    ],
)
def test_the_level_of_a_line(raw: str, level: str | None) -> None:
    assert read_line(raw)["level"] == level
    assert level is None or level in LEVELS


def test_a_json_line_has_a_message_and_its_other_fields() -> None:
    line = read_line('{"level": "info", "message": "job done", "ms": 160, "user": {"id": 7}}')

    assert (line["message"], line["extra_data"]) == ("job done", {"ms": 160, "user": {"id": 7}})


@pytest.mark.parametrize(
    ("raw", "message", "extra"),
    [
        ('{"level": "audit", "msg": "x"}', "x", {"level": "audit"}),
        ('{"level": 35, "msg": "x"}', "x", {"level": 35}),
        ('2026-11-28T10:00:00Z {"level":"error","msg":"x","n":1}', "x", {"n": 1}),
        ('{"@l": "Error", "@mt": "took {Ms}", "Ms": 7}', "took {Ms}", {"Ms": 7}),
        (
            '{"source":"stderr","log":"{\\"level\\":\\"error\\",\\"msg\\":\\"db down\\"}"}',
            "db down",
            {"source": "stderr"},
        ),
        ('{"source":"stderr","log":"ERROR db down\\n"}', "ERROR db down", {"source": "stderr"}),
        ('{"log":"{\\"log\\":\\"x\\"}"}', '{"log":"x"}', {"log": "x"}),
    ],
)
def test_fields_of_many_libraries_are_found(raw: str, message: str, extra: dict[str, Any] | None) -> None:
    line = read_line(raw)

    assert (line["message"], line["extra_data"]) == (message, extra)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("Server listening\r", "Server listening"),
        ("a\r\n  b\r\n", "a\n  b"),
        ("0%\r50%\r100%\r", "100%"),
        ('{"msg": "a\\r\\nb\\r"}', "a\nb"),
    ],
)
def test_a_carriage_return_overwrites_as_in_a_terminal(raw: str, message: str) -> None:
    assert read_line(raw)["message"] == message


@pytest.mark.parametrize("raw", ["plain", "[1, 2]", '"text"', "{broken", "{" * 5000, "[" * 5000, "{}" + "x"])
def test_anything_but_a_json_object_is_text(raw: str) -> None:
    assert read_line(raw)["message"] == raw
    assert read_line(raw)["extra_data"] is None


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[38;5;196mx\x1b[K", "x"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("\x1bPdcs\x1b\\x", "x"),
        ("cut \x1b[31", "cut "),
        ("nul \x00 here", "nul \ufffd here"),
        ("bell \x07", "bell \ufffd"),
        ("over\rwrite", "over\ufffdwrite"),
        ("\u202etxt.exe", "\ufffdtxt.exe"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("日本語 émoji 🙂", "日本語 émoji 🙂"),
    ],
)
def test_text_is_made_safe(raw: str, shown: str) -> None:
    assert safe_text(raw) == shown
    safe_text(raw).encode()


def test_json_is_made_safe_however_deep() -> None:
    hostile: Any = {"message": "\u001b[31mx\u0000", "a\u0000": ["\u001b[0m", {"b": "\ud800"}], "n": float("nan")}
    for _ in range(30):
        hostile["deep"] = {"deep": hostile.get("deep", "end")}

    line = read_line(json.dumps(hostile))

    text = json.dumps(line, ensure_ascii=False, allow_nan=False)
    assert "\x1b" not in text
    assert "\\u0000" not in text
    text.encode()
    assert line["message"] == "x\ufffd"
    assert "…" in text


def test_a_line_of_a_megabyte_is_truncated_and_says_so() -> None:
    line = read_line("ERROR " + "x" * 1_000_000)

    assert line["cut"]
    assert line["level"] == "ERROR"
    assert len(line["message"]) < MAX_LINE + 100
    assert line["message"].endswith("(truncated: 16,384 of 1,000,006 characters shown)")
    assert not read_line("x" * MAX_LINE)["cut"]


@pytest.mark.parametrize(
    "raw",
    [
        "\x1b[" * 500_000,
        "\x1b[" + "0;" * 500_000,
        "\x1b]" * 500_000,
        "\x1b]" + "x" * 1_000_000,
        "{" * 1_000_000,
        '{"a":' * 200_000,
        "\x00" * 1_000_000,
        "\x1bP" * 500_000,
    ],
)
def test_no_line_takes_long(raw: str) -> None:
    began = time.thread_time()  # only of this thread: the machine may be busy

    read_line(raw)
    safe_text(raw)

    assert time.thread_time() - began < 1
