"""What the chart and its example mount is fit to run with: judged by the gateway's own `check`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HELM = shutil.which("helm", path=f"{ROOT / 'build' / 'bin'}{os.pathsep}{os.environ['PATH']}")


def config_maps(text: str) -> list[dict[str, str]]:
    return [each["data"] for each in yaml.safe_load_all(text) if each and each["kind"] == "ConfigMap"]


def check(folder: Path, maps: list[dict[str, str]]) -> subprocess.CompletedProcess[str]:
    """Lay the files out as the pod mounts them, below `folder`, and check them."""
    policies = folder / "policies"
    policies.mkdir()
    for data in maps:
        for name, content in data.items():
            if name == "config.yaml":
                (folder / name).write_text(content.replace("/etc/sallyport/policies", str(policies)))
            else:
                (policies / name).write_text(content)
    command = [sys.executable, "-m", "gateway", "check", "--config", str(folder / "config.yaml")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_sidecar_example(tmp_path: Path) -> None:
    maps = config_maps((ROOT / "helm" / "examples" / "sidecar.yaml").read_text())
    assert len(maps) == 2
    ended = check(tmp_path, maps)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.skipif(HELM is None, reason="LEFT OUT: helm is not here (make chart builds it where Go is)")
def test_the_charts_own_values(tmp_path: Path) -> None:
    rendered = subprocess.run(
        [HELM, "template", "sallyport", str(ROOT / "helm"), "--kube-version=1.31.0"],
        capture_output=True,
        text=True,
        check=True,
    )
    ended = check(tmp_path, config_maps(rendered.stdout))
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.skipif(HELM is None, reason="LEFT OUT: helm is not here (make chart builds it where Go is)")
def test_the_chart_without_records(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "config: {store: {records: none}}\n"
        "policies: {policies.yaml: {rules: [{name: all, access: public, upstream: app}]}}\n"
    )
    rendered = subprocess.run(
        [HELM, "template", "sallyport", str(ROOT / "helm"), "--kube-version=1.31.0", "--values", str(values)],
        capture_output=True,
        text=True,
        check=True,
    )
    ended = check(tmp_path, config_maps(rendered.stdout))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_wrong_policy_would_be_seen_here(tmp_path: Path) -> None:
    maps = config_maps((ROOT / "helm" / "examples" / "sidecar.yaml").read_text())
    maps[1]["policies.yaml"] += "  - {name: broken, upstreem: app}\n"
    assert check(tmp_path, maps).returncode != 0
