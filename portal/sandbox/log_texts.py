"""Log texts of the local AWS's containers. Fields in braces are filled in by `log_lines.py`."""

# (level, logger, text). Each line picks one of them at random, so frequent messages are listed more than once.
MESSAGES: tuple[tuple[str, str, str], ...] = (
    ("INFO", "http", "GET /health 200 in {ms} ms"),
    ("INFO", "http", "POST /api/v1/process 200 in {ms} ms"),
    ("INFO", "http", "POST /api/v1/process 200 in {ms} ms"),
    ("INFO", "worker", "job {request_id} done in {ms} ms"),
    ("INFO", "worker", "job {request_id} taken from queue default"),
    ("INFO", "worker", "{count} jobs waiting"),
    ("INFO", "llm.client", "completion of {tokens} tokens in {ms} ms"),
    ("INFO", "llm.client", "completion of {tokens} tokens in {ms} ms"),
    ("INFO", "policy", "request {request_id} allowed by {count} policies"),
    ("INFO", "policy", "policies reloaded: {count} active"),
    ("INFO", "tools.search", "{count} results in {ms} ms"),
    ("INFO", "scheduler", "heartbeat sent, {count} tasks known"),
    ("DEBUG", "llm.client", "prompt has {tokens} tokens, cache hit"),
    ("DEBUG", "worker", "lease of job {request_id} renewed"),
    ("DEBUG", "db", "query took {ms} ms, {count} rows"),
    ("DEBUG", "http", "connection from 10.0.1.{count} kept alive"),
    ("WARN", "llm.client", "provider answered 429, attempt 2 in {ms} ms"),
    ("WARN", "db", "slow query: {ms} ms for {count} rows"),
    ("WARN", "worker", "job {request_id} took longer than {ms} ms"),
    ("ERROR", "llm.client", "provider timed out after {ms} ms, request {request_id} given up"),
)

# (milliseconds after the start, line)
OPENING: tuple[tuple[int, str], ...] = (
    (80, "{plain_time} INFO main: {container} {version} starting, task {task}"),
    (210, '{{"time": "{time}", "level": "info", "logger": "config", "message": "settings read from the environment"}}'),
    (390, '{{"time": "{time}", "level": "debug", "logger": "db", "message": "connection pool of 10 opened"}}'),
    (720, "{plain_time} \x1b[33mWARN \x1b[0m config: LOG_FORMAT is not set, using json"),
    (1150, '{{"time": "{time}", "level": "info", "logger": "http", "message": "listening on 0.0.0.0:8080"}}'),
)

STOPPING: tuple[tuple[int, str], ...] = (
    (0, "{plain_time} INFO main: SIGTERM received, accepting no new requests"),
    (180, '{{"time": "{time}", "level": "info", "logger": "worker", "message": "waiting for 2 jobs to finish"}}'),
    (940, '{{"time": "{time}", "level": "info", "logger": "db", "message": "connection pool closed"}}'),
    (1400, "{plain_time} INFO main: stopped, exit code 0"),
)

CRASH: tuple[tuple[int, str], ...] = (
    (
        0,
        '{{"time": "{time}", "level": "error", "logger": "main", "message": "start-up failed: no model is configured"}}',
    ),
    (0, "Traceback (most recent call last):"),
    (0, '  File "/app/main.py", line 41, in <module>'),
    (0, "    run(load_settings())"),
    (0, '  File "/app/settings.py", line 87, in load_settings'),
    (0, '    raise SettingsError("no model is configured: set MODEL_ID")'),
    (0, "settings.SettingsError: no model is configured: set MODEL_ID"),
    (0, "{plain_time} ERROR main: Essential container exited with code {exit_code}"),
)
