"""Validation of agents: image references, sizes of Fargate, and values that look like secrets."""

import time

import pytest

from deployments.container_spec import (
    FARGATE_SIZES,
    environment_errors,
    image_errors,
    image_version,
    is_secret_reference,
    looks_like_secret,
    size_errors,
    with_version,
)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("agent", None),
        ("agent:v1", "v1"),
        ("team/agent:1.2.3-rc_1", "1.2.3-rc_1"),
        ("localhost:5000/agent", None),
        ("111111111111.dkr.ecr.eu-central-1.amazonaws.com/acme/agent:v1", "v1"),
        ("ghcr.io/a/b/c__d:latest", "latest"),
        (f"agent:v1@sha256:{'a' * 64}", "v1"),
        (f"agent@sha256:{'a' * 64}", None),
    ],
)
def test_image_references_are_valid_and_have_a_version(image: str, version: str | None) -> None:
    assert image_errors(image) == []
    assert image_version(image) == version
    assert with_version(image, "v9").endswith(":v9")
    assert "@" not in with_version(image, "v9")


@pytest.mark.parametrize(
    "image", ["", "Agent:v1", "agent:", "agent: v1", "http://x/y", "a@sha256:1", "agent:v1\n", "x" * 600]
)
def test_invalid_image_references_are_refused(image: str) -> None:
    assert image_errors(image)


def test_only_sizes_of_fargate_are_accepted() -> None:
    for cpu, memories in FARGATE_SIZES.items():
        for memory in memories:
            assert size_errors(cpu, memory) == {}
        assert set(size_errors(cpu, memories[-1] + 1024)) == {"memory"}
        assert set(size_errors(cpu, memories[0] - 1)) == {"memory"}
    assert set(size_errors(0, 512)) == {"cpu"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "info"),
        ("MAX_TOKENS", "4096"),
        ("MODEL", "anthropic/claude-3-5-sonnet-20241022"),
        ("ENDPOINT", "https://bedrock-runtime.eu-central-1.amazonaws.com/model"),
        ("QUEUE_ARN", "arn:aws:sqs:eu-central-1:111111111111:Orders-Queue-A1b2C3d4E5f6G7"),
        ("TENANT", "0b0cf2b2-7c1a-4c2f-9d55-0e2c6a1b2c3d"),
        ("IMAGE", f"sha256:{'0123456789abcdef' * 4}"),
        ("DATABASE_URL", "postgresql://db.internal:5432/agents"),
        ("PARTITION_KEY", "customer"),
        (
            "SSH_PUBLIC_KEY",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDk3q2Xc9mS8rJ7wT4yLp0Zb5nVh6gQfEuRaWd1KxYtB me@example",
        ),
        ("GIT_SHA", "9da39a3ee5e6b4b0d3255bfef95601890afd8070"),
        ("SOURCE_COMMIT", "9da39a3ee5e6b4b0d3255bfef95601890afd8070"),
        ("TRACEPARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("PARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("VERSION", "9da39a3ee5e6b4b0d3255bfef95601890afd8070"),
        ("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"),
        ("S3_KEY", "reports/x.csv"),
        ("KMS_KEY_ID", "1234abcd-12ab-34cd-56ef-1234567890ab"),
        ("IDEMPOTENCY_KEY", "order"),
        ("API_KEY_HEADER", "X-Api-Key"),
        ("BYPASS", "on"),
        ("KMS_KEY", "alias/agent"),
        ("spring.datasource.url", "jdbc:postgresql://db.internal:5432/agents"),
        ("ConnectionStrings:Default", "Server=db.internal;Database=agents"),
        ("Logging__LogLevel__Default", "Information"),
        ("SEARCH", "https://search.internal/?q=tokens&size=10"),
        ("DPW", "on"),
        ("PWM_PERIOD", "20"),
        ("PASSCODE_LENGTH", "6"),
        ("KEY_COUNT", "3"),
        ("API_KEY", ""),
        ("KEYBOARD", "qwerty"),
        ("GREETING", "Hello, this is a longer sentence with Words and 3 numbers."),
        ("API_KEY", "arn:aws:secretsmanager:eu-central-1:111111111111:secret:acme/key-Ab12Cd"),
        ("DB_PASSWORD", "arn:aws:ssm:eu-central-1:111111111111:parameter/acme/password"),
        ("DB_PASSWORD", "arn:aws-eusc:ssm:eusc-de-east-1:111111111111:parameter/acme/password"),
        ("DB_PASSWORD", "arn:aws:secretsmanager:eu-central-1:111111111111:secret:db-Ab12Cd:password::"),
    ],
)
def test_plain_values_and_references_are_accepted(name: str, value: str) -> None:
    assert environment_errors({name: value}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", "x"),
        ("STRIPE_SECRET", "x"),
        ("db_password", "x"),
        ("GITHUB_TOKEN", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("CREDENTIALS", "x"),
        ("DB_PASS", "x"),
        ("DBPASSWORD", "x"),
        ("SECRETKEY", "x"),
        ("PASS", "x"),
        ("API_KEYS", "x"),
        ("apiToken", "x"),
        ("spring.datasource.password", "x"),
        ("Stripe:ApiKey", "x"),
        ("DBPASS", "x"),
        ("dbPwd", "x"),
        ("DB_PW", "x"),
        ("PW", "x"),
        ("db.pw", "x"),
        ("DB_PW_1", "x"),
        ("PASSCODE", "x"),
        ("userPasscode", "x"),
        ("PASS_CODES", "x"),
        ("OPTIONS", "serve -u admin:hunter2"),
        ("CONFIG", '[{"name": "DB_PASSWORD", "value": "hunter2"}]'),
        ("PASSWORD_PROD", "x"),
        ("DB_PASSWORD_1", "x"),
        ("PASSWORD2", "x"),
        ("JAVA_OPTS", "-Xmx1g -Ddb.password=hunter2"),
        ("ARGUMENTS", "serve --password hunter2"),
        ("CONFIG", '{"user": "app", "password": "hunter2"}'),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2"),
        ("HEADERS", "Authorization=Bearer hunter2hunter2"),
        ("SETTING", "npm_abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"),
        ("X_API_KEY", "9da39a3ee5e6b4b0d3255bfef95601890afd8070"),
        ("KMS_KEY", "AKIAIOSFODNN7EXAMPLE"),
        ("DATABASE", "Server=db.internal;User=app;Password=hunter2"),
        ("CALLBACK", "https://hooks.internal/in?token=hunter2hunter2"),
        ("HOOK", "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX"),
        ("SENTRY", "https://0123456789abcdef0123456789abcdef@o1.ingest.sentry.io/42"),
        ("ID", "AKIAIOSFODNN7EXAMPLE"),
        ("SETTING", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        ("SETTING", "sk-proj-abcdefghijklmnopqrstuvwx"),
        ("SETTING", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
        ("SETTING", "xoxb-123456789012-abcdefghijkl"),
        ("SETTING", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc"),
        ("SETTING", "-----BEGIN RSA PRIVATE KEY-----"),
        ("SETTING", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("SETTING", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        ("DATABASE_URL", "postgresql://app:hunter2@db.internal/agents"),
        ("API_KEY", "arn:aws:s3:::bucket"),
        ("API_KEY", "arn:aws:ssm:eusc-de-east-1:111111111111:parameter/of-another-partition"),
        ("API_KEY", "arn:aws-mars:ssm:eu-central-1:111111111111:parameter/a"),
    ],
)
def test_what_looks_like_a_secret_is_refused_with_the_reason(name: str, value: str) -> None:
    (sentence,) = environment_errors({name: value})

    assert sentence.startswith(name)
    assert "ARN" in sentence
    assert value == "x" or value not in sentence


def test_references_are_whole_arns() -> None:
    arn = "arn:aws:ssm:eu-central-1:111111111111:parameter/a"

    assert is_secret_reference(arn)
    assert not is_secret_reference(f"{arn} ")
    assert not is_secret_reference(f"{arn}\n")


@pytest.mark.parametrize(
    "text", ["a" * 4096, "sk-" * 1300, "x://" + ":" * 4000, "-----BEGIN " + "A " * 2000, "eyJ" * 1300]
)
def test_no_value_takes_long_to_check(text: str) -> None:
    began = time.thread_time()

    looks_like_secret("SETTING", text)
    image_errors(text[:512])

    assert time.thread_time() - began < 0.3


@pytest.mark.parametrize("name", ["", "A B", "A=B", "A\n", "#A", "Ä", "A" * 256])
def test_what_ecs_cannot_take_is_no_name(name: str) -> None:
    (sentence,) = environment_errors({name: "x"})

    assert "is not a valid variable name" in sentence


@pytest.mark.parametrize(
    ("name", "value", "is_taken"),
    [
        ("X_API_KEY", "9da39a3ee5e6b4b0d3255bfef95601890afd8070", True),
        ("SENTRY_DSN", "https://0123456789abcdef0123456789abcdef@o1.ingest.sentry.io/42", True),
        ("SETTING", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", True),
        ("ID", "AKIAIOSFODNN7EXAMPLE", False),
        ("HOOK", "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX", False),
        ("DATABASE_URL", "postgresql://app:hunter2@db.internal/agents", False),
    ],
)
def test_a_person_can_say_that_it_is_no_secret(name: str, value: str, is_taken: bool) -> None:
    """Not for what is a credential by its form."""
    assert environment_errors({name: value}) != []
    assert (environment_errors({name: value}, not_secrets=[name]) == []) is is_taken
    assert environment_errors({name: value}, kept={name: value}) == []
