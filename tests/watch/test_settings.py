"""What stands in [watch] and [alarms] and cannot be meant stops the start, and is named."""

from pathlib import Path

import pytest

from exchange.app import telling
from exchange.settings import load_settings
from security.errors import Misconfigured

ROOT = Path(__file__).parents[2]


def with_(folder: Path, lines: str) -> Path:
    text = (ROOT / "settings.toml").read_text(encoding="utf-8").partition("\n[watch]")[0]
    path = folder / "settings.toml"
    path.write_text(f"{text}\n{lines}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "lines, named",
    [
        ('[watch]\nscrape = ["everybody"]', "everybody"),
        ('[watch]\nscrape = ["10.0.0.1/8"]', "10.0.0.1/8"),
        ('[watch]\nlog = "xml"', "xml"),
        ('[alarms]\nquiet = ["22-7"]', "22:00-07:00"),
        ('[alarms]\nwebhook = "ftp://city.example/"', "webhook"),
        ('[alarms]\nsmtp = "mail.city.example"', "smtp://host:587"),
        ('[alarms]\nsmtp = "smtps://mail.city.example"', "sender and to"),
        ('[alarms]\nsmtp_user = "bus"', "smtp_password_file"),
        ('[alarms]\nmail = "x"', "mail"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(tmp_path: Path, lines: str, named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        load_settings(with_(tmp_path, lines))


def test_the_settings_as_shipped_tell_nobody_and_let_this_machine_alone_look() -> None:
    settings = load_settings(ROOT / "settings.toml")
    assert settings.alarms.ways == []
    assert telling.alarm_ways(settings) == {}
    assert all(network.is_loopback for network in settings.watch.networks)


def test_a_secret_that_others_can_read_or_that_lies_in_the_state_stops_the_start(tmp_path: Path) -> None:
    path = with_(tmp_path, '[alarms]\nwebhook = "https://city.example/"\nwebhook_secret_file = "hook.secret"')
    with pytest.raises(Misconfigured, match=r"hook\.secret"):
        telling.alarm_ways(load_settings(path))
    secret = tmp_path / "hook.secret"
    secret.write_text("geheim\n", encoding="utf-8")
    secret.chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        telling.alarm_ways(load_settings(path))
    secret.chmod(0o600)
    assert list(telling.alarm_ways(load_settings(path))) == ["webhook"]
    path.write_text(path.read_text(encoding="utf-8").replace("hook.secret", "state/hook.secret"), encoding="utf-8")
    with pytest.raises(Misconfigured, match="move it out"):
        telling.alarm_ways(load_settings(path))
