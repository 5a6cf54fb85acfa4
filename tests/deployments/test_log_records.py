"""Records of a log: lines that belong together, their level, and what a search finds in them."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from portal.cloudwatch.last_error import choose_error
from portal.cloudwatch.log_lines import read_line
from portal.cloudwatch.logs import LogLine
from portal.cloudwatch.records import count_levels, drop_time, group_lines

AT = datetime(2026, 11, 28, 10, 0, tzinfo=UTC)

PYTHON = """ERROR worker failed
Traceback (most recent call last):
  File "app.py", line 3, in run
    raise KeyError("MODEL_ID")
KeyError: 'MODEL_ID'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "app.py", line 5, in run
app.errors.SettingMissing.Error: set MODEL_ID"""
JAVA = """java.lang.IllegalStateException: no pool
\tat app.Pool.get(Pool.java:7)
Caused by: java.io.IOException: reset
\t... 12 more"""
GO = """panic: nil map

goroutine 1 [running]:
main.main()
\t/app/main.go:5 +0x1d"""
SIGNAL = """panic: runtime error: invalid memory address or nil pointer dereference [recovered]
\tpanic: again
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x47a]

goroutine 1 [running]:
main.(*Server).serve(0xc000010000)
\t/app/main.go:5 +0x1d
created by main.start in goroutine 1
exit status 2"""
UNCAUGHT = """Traceback (most recent call last):
  File "app.py", line 3, in <module>
    os.environ["MODEL_ID"]  # no ERROR
KeyError: 'MODEL_ID'"""
SYNTAX = """  File "/app/app.py", line 3
    x = = 1
        ^
SyntaxError: invalid syntax"""
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "app.py", line 3, in <module>
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "app.py", line 5, in run
    | KeyError: 'MODEL_ID'
    +------------------------------------"""
PYDANTIC = """Traceback (most recent call last):
  File "app.py", line 3, in <module>
    Settings()
pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings
MODEL_ID
  Field required [type=missing]"""
JAVA_MAIN = """Exception in thread "main" java.lang.IllegalStateException: boom
\tat com.x.A.main(A.java:1)
Caused by: org.postgresql.util.PSQLException: FATAL: password authentication failed
\t... 1 more"""
DOTNET = """Unhandled exception. System.InvalidOperationException: boom
   at App.Program.Main(String[] args) in /src/Program.cs:line 3"""
PHP = """PHP Fatal error:  Uncaught Exception: boom in /app/a.php:3
Stack trace:
#0 {main}
  thrown in /app/a.php on line 3"""
RUST = """thread 'main' panicked at src/main.rs:1:1:
called `Option::unwrap()` on a `None` value
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"""
RUBY = """app.rb:3:in 'Object#run': boom (RuntimeError)
\tfrom app.rb:5:in '<main>'"""
NODE = """Error: Cannot find module 'x'
    at Module._resolve (node:internal:1)
{
  code: 'MODULE_NOT_FOUND'
}"""


def lines(text: str, *, task: str = "t1", step: float = 0.001) -> list[LogLine]:
    return [
        LogLine(id=f"{number:03}", timestamp=AT + timedelta(seconds=step * number), node_id=task, **read_line(message))
        for number, message in enumerate(text.split("\n"))
    ]


def wrap(text: str, **others: str) -> str:
    """Return the line as a log router writes it, with a time that differs from line to line."""
    fields = {"container_name": "agent", "source": "stderr", "log": f"{text}\n", "time": f"10:00:00.{len(text)}"}
    return json.dumps(fields | others)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        pytest.param(PYTHON, "ERROR", id="python"),
        pytest.param(PYTHON.partition("\n")[2], "ERROR", id="python without a line before"),
        pytest.param(JAVA, "ERROR", id="java"),
        pytest.param(GO, "CRITICAL", id="go"),
        pytest.param(NODE, "ERROR", id="node"),
        pytest.param(SIGNAL, "CRITICAL", id="go with a signal"),
        pytest.param(UNCAUGHT, "ERROR", id="python that nobody caught"),
        pytest.param(GROUP, "ERROR", id="python with a group"),
        pytest.param(PYDANTIC, "ERROR", id="pydantic"),
        pytest.param(JAVA_MAIN, "ERROR", id="java that nobody caught"),
        pytest.param(DOTNET, "ERROR", id="dotnet"),
        pytest.param(PHP, "CRITICAL", id="php"),
        pytest.param(RUST, "CRITICAL", id="rust"),
        pytest.param(RUBY, "ERROR", id="ruby"),
    ],
)
def test_a_stack_trace_is_one_record_with_its_level(text: str, level: str) -> None:
    before, after = LogLine("b", AT - timedelta(seconds=9), "INFO", "before", "t1", None, False), "INFO after"

    records = group_lines([before, *lines(f"{text}\n{after}")])

    assert [record.message for record in records] == ["before", text, after]
    assert records[1].level == level


@pytest.mark.parametrize("text", [f"ERROR failed\n{UNCAUGHT}", UNCAUGHT, JAVA, GO, SIGNAL, NODE, DOTNET, PHP, PYDANTIC])
def test_a_trace_that_a_router_wrapped_is_one_record(text: str) -> None:
    records = group_lines(lines("\n".join(wrap(each) for each in ["INFO before", *text.split("\n"), "INFO after"])))

    assert [record.message for record in records] == ["INFO before", text, "INFO after"]
    assert records[1].level in ("ERROR", "CRITICAL")
    assert records[1].fields == [("container_name", "agent"), ("source", "stderr")]


def test_wrapped_lines_of_other_sources_stay_apart() -> None:
    first, *others = UNCAUGHT.split("\n")

    assert len(group_lines(lines("\n".join([wrap(first), wrap(others[0], container_name="proxy")])))) == 2
    assert len(group_lines(lines("\n".join([first, wrap(others[0])])))) == 2
    assert len(group_lines(lines('{"log":"{\\"msg\\":\\"a\\"}"}\n{"log":"{\\"msg\\":\\"b\\"}"}', step=0))) == 2


@pytest.mark.parametrize("step", [0, 0.003])
@pytest.mark.parametrize("before", ["INFO starting", "WARNING slow", '{"level":"info","msg":"starting"}', "listening"])
@pytest.mark.parametrize(
    "trace", [UNCAUGHT, SYNTAX, GROUP, PYDANTIC, JAVA_MAIN, DOTNET, GO, SIGNAL, GO.split("\n", 2)[2], PHP, RUST, RUBY]
)
def test_an_uncaught_trace_does_not_take_another_level(before: str, trace: str, step: float) -> None:
    first, record = group_lines(lines(f"{before}\n{trace}", step=step))

    assert (first.level, record.message) == (read_line(before)["level"], trace)
    assert record.level in ("ERROR", "CRITICAL")


@pytest.mark.parametrize(("first", "level"), [("INFO a", "ERROR"), ("a", "ERROR"), ("WARNING a", "WARNING")])
def test_a_trace_within_one_event_is_an_error(first: str, level: str) -> None:
    line = LogLine("1", AT, node_id="t1", **read_line(f"{first}\n{UNCAUGHT}"))

    assert group_lines([line])[0].level == level


@pytest.mark.parametrize(
    "end",
    [
        "django.core.exceptions.ImproperlyConfigured: SECRET_KEY missing",
        "requests.exceptions.ConnectTimeout",
        "google.api_core.exceptions.PermissionDenied: 403 no",
        "KeyboardInterrupt",
        "SystemExit: 3",
        "Error: of the program itself",
        "psycopg2.OperationalError: connection failed: FATAL:  password authentication failed",
        "ValueError: line 1",
    ],
)
def test_a_traceback_keeps_its_last_line(end: str) -> None:
    trace = UNCAUGHT.rpartition("\n")[0]

    records = group_lines(lines(f"{trace}\n{end}\nINFO: stopping\nerror: left", step=0.2))

    assert [record.message for record in records] == [f"{trace}\n{end}", "INFO: stopping", "error: left"]


@pytest.mark.parametrize("trace", [UNCAUGHT, "TypeError: x is not a function\n    at run (/app/x.js:3:7)"])
@pytest.mark.parametrize("step", [0, 0.003, 0.3])
def test_two_traces_are_two_records(trace: str, step: float) -> None:
    records = group_lines(lines(f"{trace}\n{trace}", step=step))

    assert [record.message for record in records] == [trace, trace]


@pytest.mark.parametrize(
    ("text", "conclusion"),
    [
        (PYTHON, "app.errors.SettingMissing.Error: set MODEL_ID"),
        (UNCAUGHT, "KeyError: 'MODEL_ID'"),
        (f"INFO starting\n{UNCAUGHT}", "KeyError: 'MODEL_ID'"),
        (f"{UNCAUGHT}\nleaving", "KeyError: 'MODEL_ID'"),
        (f"ERROR:    {UNCAUGHT}", "KeyError: 'MODEL_ID'"),
        (f"Exception in thread Thread-1 (run):\n{UNCAUGHT}", "KeyError: 'MODEL_ID'"),
        (GROUP, "KeyError: 'MODEL_ID'"),
        (SYNTAX, "SyntaxError: invalid syntax"),
        (PYDANTIC, "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings"),
        (JAVA, "Caused by: java.io.IOException: reset"),
        (JAVA_MAIN, "Caused by: org.postgresql.util.PSQLException: FATAL: password authentication failed"),
        (
            'Exception in thread "main" java.lang.IllegalStateException: boom\n\tat com.x.A.main(A.java:1)',
            'Exception in thread "main" java.lang.IllegalStateException: boom',
        ),
        ("ERROR c.x.A - failed\njava.io.IOException: reset\n\tat com.x.A.main(A.java:1)", "java.io.IOException: reset"),
        ("ERROR failed\n\tat com.x.A.main(A.java:1)", "ERROR failed"),
        (DOTNET, "Unhandled exception. System.InvalidOperationException: boom"),
        (
            "System.Exception: outer\n ---> System.Net.Http.HttpRequestException: refused\n   at A.B()\n"
            "   --- End of inner exception stack trace ---\n   at C.D()",
            "---> System.Net.Http.HttpRequestException: refused",
        ),
        ("fail: App.Server[13]\n      pool exhausted\n         at A.B()", "pool exhausted"),
        (
            "fail: App.Server[13]\n      it failed\n      System.Exception: boom\n         at A.B()",
            "System.Exception: boom",
        ),
        ("fail: App.Server[13]\n      pool exhausted\n      of two", "pool exhausted"),
        ("Error: boom\n    at run (/app/x.js:3:7)\n\nNode.js v20.1.0", "Error: boom"),
        (NODE, "Error: Cannot find module 'x'"),
        ("Error: no 'x'\nRequire stack:\n- /app/x.js\n    at run (node:internal:1)", "Error: no 'x'"),
        (
            "Error: a\n    at run (/app/x.js:3:7) {\n  [cause]: Error: b\n      at c (/app/x.js:9:7)\n}",
            "[cause]: Error: b",
        ),
        (GO, "panic: nil map"),
        (
            SIGNAL,
            "panic: runtime error: invalid memory address or nil pointer dereference [recovered]",
        ),
        (
            f"2026/11/28 10:00:00 http: panic serving 10.0.0.1:4: boom\n{GO.split(chr(10), 2)[2]}",
            "http: panic serving 10.0.0.1:4: boom",
        ),
        (PHP, "PHP Fatal error:  Uncaught Exception: boom in /app/a.php:3"),
        (RUST, "called `Option::unwrap()` on a `None` value"),
        (RUBY, "app.rb:3:in 'Object#run': boom (RuntimeError)"),
        ("ERROR failed\nValueError: 3", "ValueError: 3"),
        ("ERROR failed\n  first detail\n  second", "ERROR failed"),
        ("2026-11-28 10:00:00 ERROR failed", "ERROR failed"),
    ],
)
@pytest.mark.parametrize("is_one_event", [False, True])
def test_the_last_error_says_what_went_wrong(text: str, conclusion: str, is_one_event: bool) -> None:
    failed = [LogLine("1", AT, node_id="t1", **read_line(text))] if is_one_event else lines(text)

    assert choose_error(group_lines(failed)) == conclusion


@pytest.mark.parametrize(
    ("fields", "conclusion"),
    [
        ({"exc_info": UNCAUGHT}, "job failed: KeyError: 'MODEL_ID'"),
        ({"stack_trace": JAVA}, "job failed: Caused by: java.io.IOException: reset"),
        (
            {"err": {"type": "TypeError", "message": "no x", "stack": "TypeError: no x\n    at run (/app/x.js:3:7)"}},
            "job failed: TypeError: no x",
        ),
        ({"err": {"type": "TypeError", "message": "no x"}}, "job failed: no x"),
        (
            {"error": "dial tcp 10.0.0.1:5432: connection refused"},
            "job failed: dial tcp 10.0.0.1:5432: connection refused",
        ),
        ({"error.message": "reset by peer", "host": "a\nb"}, "job failed: reset by peer"),
        ({"error": "job failed"}, "job failed"),
        ({"error": True, "exception": None, "path": "/error"}, "job failed"),
    ],
)
def test_the_last_error_of_a_json_line_is_in_its_fields(fields: dict[str, object], conclusion: str) -> None:
    text = json.dumps({"level": "error", "message": "job failed", **fields})

    assert choose_error(group_lines([LogLine("1", AT, node_id="t1", **read_line(text))])) == conclusion


def test_a_trace_in_a_field_says_more_than_the_newest_error() -> None:
    failed = json.dumps({"level": "error", "message": "job failed", "exc_info": UNCAUGHT})
    exits = json.dumps({"level": "fatal", "message": "exiting", "error": "exit status 1"})

    assert choose_error(group_lines(lines(f"{failed}\n{exits}"))) == "job failed: KeyError: 'MODEL_ID'"


def test_a_trace_says_more_than_the_newest_error() -> None:
    records = group_lines(lines(f"{UNCAUGHT}\nERROR exited\nERROR code 1\n  at last", step=0.01))

    assert choose_error(records) == "KeyError: 'MODEL_ID'"


def test_the_short_form_shows_no_line_twice() -> None:
    (node,), (python,) = group_lines(lines(f"{NODE}\n")), group_lines(lines(UNCAUGHT))

    assert (node.first_line == node.conclusion, node.hidden_lines) == (True, 5)
    assert (python.first_line == python.conclusion, python.hidden_lines) == (False, 2)


def test_lines_of_other_tasks_do_not_interrupt_a_record() -> None:
    mixed = [line for pair in zip(lines(JAVA), lines("a\nb\nc\nd", task="t2", step=5), strict=True) for line in pair]

    records = group_lines(mixed)

    assert [record.message for record in records if record.node_id == "t1"] == [JAVA]
    assert [record.message for record in records if record.node_id == "t2"] == ["a", "b", "c", "d"]


def test_lines_of_one_moment_are_one_record_unless_they_name_a_level() -> None:
    assert [record.message for record in group_lines(lines('a\nb\nINFO c\n{"msg": "d"}', step=0))] == [
        "a\nb",
        "INFO c",
        "d",
    ]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("a\nb", 0.1),
        ("a\n  b", 2),
        ("INFO a\nValueError: b", 0.1),
        (f"{UNCAUGHT}\nready", 0.1),
        (f"{UNCAUGHT}\n2026-11-28 10:00:00 ready", 0.001),
    ],
)
def test_lines_that_stand_for_themselves_are_records(text: str, step: float) -> None:
    assert len(group_lines(lines(text, step=step))) == 2


def test_a_level_finds_itself_and_what_is_worse() -> None:
    records = group_lines(lines("DEBUG a\nINFO b\nWARNING c\nERROR d\n\tat x\nCRITICAL e\nplain", step=0.1))

    assert [each.message for each in records if each.matches(level="ERROR", node_id=None, q=None)] == [
        "ERROR d\n\tat x",
        "CRITICAL e",
    ]
    assert count_levels(records) == [("CRITICAL", 1), ("ERROR", 2), ("WARNING", 3), ("INFO", 4), ("DEBUG", 5)]


@pytest.mark.parametrize(
    ("q", "is_found"),
    [("model=claude", True), ("JOB DONE", True), ("tags=[1, 2]", True), ("'model'", False), ("10:00:00", False)],
)
def test_a_search_finds_exactly_what_is_shown(q: str, is_found: bool) -> None:
    raw = '{"time": "2026-11-28T10:00:00Z", "msg": "job done", "model": "claude", "tags": [1, 2]}'
    (record,) = group_lines(lines(raw))

    assert record.fields == [("model", "claude"), ("tags", "[1, 2]")]
    assert record.matches(level=None, node_id="t1", q=q) is is_found


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("2026-11-28 10:00:01,250 INFO x", "INFO x"),
        ("[2026/11/28 12:00:00] x", "x"),  # in another zone
        ("2026-11-28T15:30:00+05:30 x", "x"),
        ("[2026-11-28 10:00:00 +0000] [7] [ERROR] x", "[7] [ERROR] x"),
        ("[2026-11-28 05:00:00 -0500] x", "x"),
        ("2026-11-28 05:00:00 -05:00 x", "x"),
        ("2026-11-28 10:00:00.000 UTC [1] ERROR:  x", "[1] ERROR:  x"),
        ("2026-11-28 12:00:00.000 CEST: x", "x"),
        ("2026-11-28 07:00:00.000 -03 [1] LOG:  x", "[1] LOG:  x"),
        ("2026-11-28 10:00:00.123+00 x", "x"),
        ("2026-11-28 10:00:00 - x", "x"),
        ("2026-11-28 10:00:00.1|INFO|x", "INFO|x"),
        ("2026-11-28 10:00:00 GET /", "GET /"),
        ("2026-11-28 10:00:00 -12 items", "-12 items"),
        ("[2026-11-28T10:00:00Z INFO  app] x", "[INFO  app] x"),
        ("[2026-11-28 10:00:00,123: ERROR/MainProcess] x", "[ERROR/MainProcess] x"),
        ("2026-11-28T09:41:00Z is when the order came", "2026-11-28T09:41:00Z is when the order came"),
        ("2026-11-28T10:00:00Z", "2026-11-28T10:00:00Z"),
    ],
)
def test_only_the_lines_own_time_is_dropped(message: str, shown: str) -> None:
    assert drop_time(message, AT) == shown
