"""The Dockerfile and the files under deploy/: they parse, agree with each other, pass `check`."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [item for item in documents("kubernetes.yaml") if item["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("Deployment")["spec"]["template"]["spec"]
    return spec


def sidecar() -> dict[str, Any]:
    (container,) = pod()["initContainers"]
    assert isinstance(container, dict)
    return container


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined, comments left out."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines]


def final_stage() -> list[tuple[str, str]]:
    steps = dockerfile()
    last = max(number for number, (word, _) in enumerate(steps) if word == "FROM")
    return steps[last:]


def check(file: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "check", "--strict", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_config_maps_gateway_passes_check(tmp_path: Path) -> None:
    data = of_kind("ConfigMap")["data"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    check(tmp_path / "gateway.yaml")


def image_config() -> Path:
    """SLUICEGATE_CONFIG of the image, in the checkout that it is copied from."""
    (copied,) = [
        rest.split() for word, rest in final_stage() if word == "COPY" and "--from" not in rest
    ]
    (env,) = [rest for word, rest in final_stage() if word == "ENV"]
    config = dict(item.split("=", 1) for item in env.split())["SLUICEGATE_CONFIG"]
    return ROOT / copied[0] / Path(config).relative_to(copied[1])


def test_the_images_configuration_passes_check() -> None:
    check(image_config())


def test_the_image_answers_its_health_check() -> None:
    (command,) = [rest for word, rest in final_stage() if word == "HEALTHCHECK"]
    gateway = yaml.safe_load(image_config().read_text())
    port = gateway["admin"]["probes"].rpartition(":")[2]
    assert f"'127.0.0.1', {port}," in command
    assert dict(final_stage())["EXPOSE"].split() == ["8080", port]


def test_every_copied_path_is_in_the_build_context() -> None:
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for word, rest in dockerfile():
        if word == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert any(Path(source).is_relative_to(folder) for folder in kept), source
                assert (ROOT / source).exists(), source


def test_the_final_stage_is_small_and_not_root() -> None:
    words = [word for word, _ in final_stage()]
    assert "RUN" not in words, "nothing is installed into the final stage"
    assert dict(final_stage())["USER"] == "10001:10001"
    assert dict(final_stage())["STOPSIGNAL"] == "SIGTERM"


def test_the_pods_ports_are_the_gateways() -> None:
    ports = {port["name"]: port["containerPort"] for port in sidecar()["ports"]}
    gateway = yaml.safe_load(of_kind("ConfigMap")["data"]["gateway.yaml"])
    assert gateway["server"]["listen"] == f"0.0.0.0:{ports['http']}"
    assert gateway["admin"]["probes"] == f"0.0.0.0:{ports['probes']}"
    (service,) = of_kind("Service")["spec"]["ports"]
    assert service["targetPort"] == ports["http"]


def test_the_pod_has_time_to_end() -> None:
    """The application's preStop, its shutdown and the gateway's drain, one after the other."""
    gateway = yaml.safe_load(of_kind("ConfigMap")["data"]["gateway.yaml"])["server"]
    drain = sum(int(gateway[key].removesuffix("s")) for key in ("drain_delay", "drain_timeout"))
    (app,) = pod()["containers"]
    assert (
        pod()["terminationGracePeriodSeconds"]
        >= app["lifecycle"]["preStop"]["sleep"]["seconds"] + 20 + drain
    )


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_every_probe_asks_the_probe_port(probe: str) -> None:
    asked = sidecar()[probe]["httpGet"]
    assert asked["port"] == "probes"
    assert asked["path"] == ("/readyz" if probe == "readinessProbe" else "/livez")


def test_the_sidecar_is_native_and_confined() -> None:
    assert sidecar()["restartPolicy"] == "Always"
    confined = sidecar()["securityContext"]
    assert confined["readOnlyRootFilesystem"] is True
    assert confined["allowPrivilegeEscalation"] is False
    assert f"{confined['runAsUser']}:{confined['runAsGroup']}" == dict(final_stage())["USER"]


def test_the_pod_mounts_where_the_image_looks() -> None:
    (mount,) = sidecar()["volumeMounts"]
    assert image_config().parent == ROOT / "deploy/container"
    assert mount["mountPath"] == "/etc/sluicegate"
    assert image_config().name in of_kind("ConfigMap")["data"]


def test_compose_publishes_only_the_gateway() -> None:
    (compose,) = documents("compose.yaml")
    services = compose["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["gateway"]
    exposed = dict(final_stage())["EXPOSE"].split()
    assert services["gateway"]["ports"][0].split(":")[1] in exposed
