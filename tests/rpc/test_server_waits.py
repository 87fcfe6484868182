"""The server's warm-up and cool-down, with clocks, heat and files that are made up."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import pconvgen.devices

NATIVE = Path(pconvgen.devices.__file__).parent / "native"
FLAGS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", '-DRUNTIME="none"')


@pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")
def test_the_server_waits_as_this_machine_does(tmp_path: Path) -> None:
    sys = tmp_path / "sys"
    for zone, text in {"thermal_zone0": "41500", "thermal_zone1": "39", "cooling_device0": "99"}.items():
        (sys / "class/thermal" / zone).mkdir(parents=True)
        (sys / "class/thermal" / zone / "temp").write_text(text)
    (sys / "devices/system/cpu/cpu3/cpufreq").mkdir(parents=True)
    (sys / "devices/system/cpu/cpu3/cpufreq/scaling_cur_freq").write_text("1200000")
    program = tmp_path / "steady"
    source = Path(__file__).parent / "steady.cc"
    subprocess.run(["g++", *FLAGS, f"-I{NATIVE}", str(source), "-o", str(program)], check=True)
    told = json.loads(subprocess.run([program, sys], capture_output=True, text=True, check=True).stdout)
    assert 1 <= told.pop("at most") < 1.1
    assert told == {
        "taken": pytest.approx(0.012),
        "runs": 10,
        "cooled": 1,
        "never cool": 10,
        "unknown": 0,
        "celsius": 41.5,
        "mhz": 1200,
        "no celsius": -1,
        "no mhz": -1,
    }
