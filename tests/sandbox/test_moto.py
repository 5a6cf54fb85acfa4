"""The internals of moto that we rely on. moto is pinned; these tests fail first if an upgrade removes them."""

import inspect
import sys

import moto
import pytest
from moto.core.responses import BaseResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from portal.sandbox import moto_state
from portal.sandbox.moto_state import ecr_backends, ecs_backends, logs_backends

PLACE = ("777777777777", "eu-central-1")


@pytest.fixture(autouse=True)
def _empty_moto() -> None:
    moto_state.reset()


def test_version_is_the_pinned_one() -> None:
    assert moto.__version__ == "5.2.5"


def test_motos_ec2_is_left_out() -> None:
    assert "moto.ec2.models" not in sys.modules


def test_ecs_backend_has_the_fields_that_we_read_and_write() -> None:
    backend = ecs_backends[PLACE[0]][PLACE[1]]
    moto_state.create_cluster(*PLACE, "c")
    moto_state.register_task_definition(
        *PLACE, "f", container_definitions=[{"name": "app", "image": "i", "memory": 64}], cpu="256", memory="512"
    )

    cluster, definition = backend.clusters["c"], backend.task_definitions["f"][1]

    counts = {"active_services_count", "running_tasks_count", "pending_tasks_count"}
    assert counts | {"arn", "name", "status"} <= set(vars(cluster))
    fields = {"arn", "family", "revision", "status", "container_definitions", "cpu", "memory"}
    assert fields <= set(vars(definition))


def test_ecr_backend_has_the_fields_that_we_read_and_write() -> None:
    moto_state.put_image(*PLACE, moto_state.ImageSeed("r", ("v1", "latest"), 1_700_000_000.0))

    repository = ecr_backends[PLACE[0]][PLACE[1]].repositories["r"]

    assert {"created_at", "images", "uploads", "image_tag_mutability"} <= set(vars(repository))
    assert {"image_manifest", "image_tags", "image_pushed_at", "last_scan"} <= set(vars(repository.images[0]))
    assert repository.images[0].image_tags == ["v1", "latest"]
    assert repository.images[0].image_pushed_at == 1_700_000_000


def test_logs_backend_has_the_fields_that_we_read_and_write() -> None:
    at = 1_700_000_000_000
    moto_state.ensure_log_stream(*PLACE, "g", "s", at)
    moto_state.ensure_log_stream(*PLACE, "g", "s", at)
    moto_state.put_log_events(*PLACE, "g", "s", [{"timestamp": at, "message": "hello"}], at)

    group = logs_backends[PLACE[0]][PLACE[1]].groups["g"]

    assert moto_state.has_log_group(*PLACE, "g")
    assert moto_state.log_streams(*PLACE, "g") == ["s"]
    assert group.to_describe_dict()["creationTime"] == group.streams["s"].to_describe_dict()["creationTime"] == at
    assert [(line.timestamp, line.message) for line in moto_state.put_log_lines(*PLACE, "g", "s")] == [(at, "hello")]


def test_images_have_unique_digests() -> None:
    digests = {
        moto_state.put_image(*PLACE, moto_state.ImageSeed(repository, (tag,), 0.0))
        for repository in ("one", "two")
        for tag in ("v1", "v2")
    }

    assert len(digests) == 4


def test_what_is_dumped_can_be_loaded_again() -> None:
    moto_state.create_cluster(*PLACE, "c")
    moto_state.register_task_definition(
        *PLACE, "f", container_definitions=[{"name": "app", "image": "i", "memory": 64}]
    )
    moto_state.put_image(*PLACE, moto_state.ImageSeed("r", ("v1",), 0.0))
    before = moto_state.dump_place(PLACE)

    moto_state.reset()
    emptied = moto_state.places()
    moto_state.load_place(PLACE, before)

    assert emptied == []
    assert moto_state.places() == [PLACE]
    assert moto_state.dump_place(PLACE) == before
    assert moto_state.find_task_definition(*PLACE, "f").arn.endswith("task-definition/f:1")


def test_account_is_read_from_the_header_that_we_set() -> None:
    assert "x-moto-account-id" in inspect.getsource(BaseResponse.get_current_account)


def test_server_application_is_where_we_take_it_from() -> None:
    assert "create_app" in inspect.signature(DomainDispatcherApplication).parameters
