"""What deploy/ names is there: commands, settings, files, mounts and secrets. Nothing of it is started here."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from exchange.cli.main import parser_of
from exchange.settings import load_settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SETS = sorted((DEPLOY / "kubernetes").iterdir())
HEADED = [*UNITS, *SETS, DEPLOY / "compose.yaml", DEPLOY / "settings.toml"]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def pods() -> list[dict[str, Any]]:
    """The pods of every Deployment."""
    documents = [one for path in SETS for one in yaml.safe_load_all(path.read_text())]
    return [one["spec"]["template"] for one in documents if one["kind"] == "Deployment"]


def commands() -> list[list[str]]:
    """Every command line of ours in it."""
    said = [re.search(r"^ExecStart=\S+ (.*)$", path.read_text(), re.M) for path in UNITS]
    found = [shlex.split(line[1]) for line in said if line]
    found += [one["command"] for one in compose()["services"].values() if one["image"].startswith("yongtong:")]
    found += [one["args"] for pod in pods() for one in pod["spec"]["containers"]]
    found += [re.findall(r'"([^"]+)"', line) for line in _lines("Containerfile", "CMD ")]
    return found


def test_every_command_is_one_that_yongtong_takes() -> None:
    assert len(commands()) == 2 + 4 + 2 + 1
    for command in commands():
        assert parser_of().parse_args(command).role in ("http", "worker")


def test_its_settings_are_read_as_the_bus_reads_them() -> None:
    settings = load_settings(DEPLOY / "settings.toml")
    assert settings.state.journal.startswith("postgresql://yongtong@postgres/")


@pytest.mark.parametrize("path", HEADED, ids=lambda path: path.name)
def test_each_head_says_its_sizes_and_what_to_change(path: Path) -> None:
    head = path.read_text().partition("\n\n")[0]
    assert "Thought for:" in path.read_text()[:1500]
    assert "Change:" in path.read_text()[:1500]
    assert head.startswith("# 甬通")
    assert f"`{path.relative_to(DEPLOY)}`" in (DEPLOY / "README.md").read_text() or path.parent.name == "kubernetes"


def test_what_compose_mounts_and_opens_is_declared() -> None:
    said = compose()
    for service in said["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source.startswith(".") or source in said["volumes"]
        assert set(service.get("secrets", [])) <= set(said["secrets"])
        named = re.findall(r"/run/secrets/([\w-]+)", str(service.get("environment", "")))
        assert set(named) <= set(service.get("secrets", []))
    settings = load_settings(DEPLOY / "settings.toml")
    assert Path(settings.keys.passphrase_file).name in said["secrets"]
    ours = said["services"]["serve-1"]
    mounted = {volume.split(":")[1] for volume in ours["volumes"]}
    for folder in (settings.state.folder, settings.keys.folder, *settings.feeds.folders, "city", "settings.toml"):
        assert f"/srv/yongtong/{folder}" in mounted


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: str(pod["metadata"]["labels"]["part"]))
def test_what_a_pod_mounts_is_one_of_its_volumes_and_nothing_runs_as_root(pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert spec["securityContext"]["runAsNonRoot"]
    every = [*spec["initContainers"], *spec["containers"]]
    assert {mount["name"] for container in every for mount in container["volumeMounts"]} == volumes
    for container in every:
        assert container["securityContext"]["readOnlyRootFilesystem"]
        ports = {port["name"] for port in container.get("ports", [])}
        probes = [container[name]["tcpSocket"]["port"] for name in container if name.endswith("Probe")]
        assert set(probes) <= ports


def test_selectors_find_the_pods_that_they_are_for() -> None:
    labels = [pod["metadata"]["labels"] for pod in pods()]
    for path in SETS:
        for one in yaml.safe_load_all(path.read_text()):
            selector = one["spec"].get("selector") if one["kind"] != "Namespace" else None
            wanted = (selector or {}).get("matchLabels", selector)
            assert not wanted or any(wanted.items() <= of.items() for of in labels), one["kind"]


def test_the_image_is_made_of_what_the_tree_holds() -> None:
    copied = [line.split()[1:-1] for line in _lines("Containerfile", "COPY ") if "--from" not in line]
    for source in (name for line in copied for name in line):
        assert (ROOT / source).exists(), source
    assert "--require-hashes -r requirements.lock" in (DEPLOY / "Containerfile").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    files = []
    for path in UNITS:
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(), flags=re.M)
        files.append(tmp_path / path.name)
        files[-1].write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, files)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in said.stderr.splitlines() if "yongtong" in line] == []
    assert said.returncode == 0


def _lines(name: str, begin: str) -> list[str]:
    return [line for line in (DEPLOY / name).read_text().splitlines() if line.startswith(begin)]
