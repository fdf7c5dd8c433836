"""What the doctor says of a RabbitMQ: the step that does not hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.rabbit import PASSWORD, Rabbit
from exchange.app import keys_in_force, places
from exchange.cli.trial import Trial
from exchange.doctor.check import Check
from exchange.doctor.examine import examine
from scheduler.celery_app import make_celery
from scheduler.queues import open_queue, rabbit_of
from security.errors import Misconfigured, Unavailable
from tests.whole.real_bus import a_trial
from tests.whole.test_kills import free_port


@pytest.fixture(scope="module")
def trial(rabbit: Rabbit, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return a_trial(tmp_path_factory.mktemp("bus"))


@pytest.fixture(autouse=True)
def no_queue(trial: Trial, rabbit: Rabbit) -> Iterator[None]:
    """Other tests' buses go by the same name."""
    yield
    name = f"yongtong.{trial.settings.bus.origin}"
    with make_celery(rabbit_of(rabbit.url, lambda: PASSWORD, "", name)).connection_for_write() as connection:
        connection.channel().queue_delete(name)


def looked_at(trial: Trial, **worker: Any) -> Check:
    """What is found with these settings of the worker."""
    said = msgspec.structs.replace(trial.settings.worker, **worker)
    found = examine(msgspec.structs.replace(trial.settings, worker=said), places.utc_now())
    (check,) = (one for one in found if one.name == "queue.broker")
    return check


def test_a_folder_of_files_is_well(trial: Trial) -> None:
    assert looked_at(trial).ok


def test_over_tls_the_certificate_is_of_the_ca_that_is_named_and_of_that_host(trial: Trial, rabbit: Rabbit) -> None:
    said = {"queue": rabbit.tls_url, "queue_password_file": str(rabbit.folder / "password")}
    assert looked_at(trial, **said, queue_ca=str(rabbit.folder / "ca.pem")).ok
    by_number = said | {"queue": rabbit.tls_url.replace("localhost", "127.0.0.1")}
    for unlike in ({**said}, {**by_number, "queue_ca": str(rabbit.folder / "ca.pem")}):  # of the bus's own CA; a name
        assert "(tls)" in looked_at(trial, **unlike).en


def test_a_task_goes_over_tls_and_to_no_other_server(rabbit: Rabbit) -> None:
    for url, takes in ((rabbit.tls_url, True), (rabbit.tls_url.replace("localhost", "127.0.0.1"), False)):
        where = rabbit_of(url, lambda: PASSWORD, str(rabbit.folder / "ca.pem"), "yongtong.tls")
        queue = open_queue(make_celery(where), where)
        if takes:
            queue.put("a")
            assert queue.unread()
        else:
            with pytest.raises(Unavailable, match="certificate verify failed"):
                queue.put("a")
        queue.close()


@pytest.mark.parametrize("step", ["", "address", "tls", "login", "vhost", "rights", "queue"])
def test_the_broken_step_is_named(step: str, trial: Trial, rabbit: Rabbit, tmp_path: Path) -> None:
    url, password = rabbit.url, rabbit.folder / "password"
    name = f"yongtong.{trial.settings.bus.origin}"
    if step == "address":
        url = url.replace(str(rabbit.port), str(free_port()))
    elif step == "tls":  # a server that speaks none
        url = url.replace("amqp://", "amqps://")
    elif step == "login":
        password = tmp_path / "password"
        password.write_text("another\n")
        password.chmod(0o600)
    elif step == "vhost":
        url = url.removesuffix("/yongtong") + "/nowhere"
    elif step == "rights":
        url = url.removesuffix("/yongtong") + "/other"
    elif step == "queue":
        where = rabbit_of(rabbit.url, lambda: PASSWORD, "", name)
        with make_celery(where).connection_for_write() as connection:
            connection.channel().queue_delete(name)
            connection.channel().queue_declare(name, durable=True, auto_delete=False)  # of the classic kind
    check = looked_at(trial, queue=url, queue_password_file=str(password))
    assert check.ok == (not step)
    assert f"({'vhost' if step == 'rights' else step})" in check.en or not step
    assert PASSWORD not in check.en + check.zh


def test_without_a_password_the_file_is_asked_for(trial: Trial, rabbit: Rabbit) -> None:
    assert "queue" in looked_at(trial, queue=rabbit.url).en


def test_a_password_that_others_can_read_stops_the_start(trial: Trial, rabbit: Rabbit, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    said = msgspec.structs.replace(trial.settings.worker, queue_password_file=str(password))
    with pytest.raises(Misconfigured, match="mode 0644"):
        keys_in_force.check_keys_placed(msgspec.structs.replace(trial.settings, worker=said))
