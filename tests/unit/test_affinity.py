"""Sets of cores as text, and threads against the cores that there are."""

from __future__ import annotations

import pytest

from pconvgen.affinity import check_threads, choose_cores, core_numbers, format_cores, parse_cores, usable_cores
from pconvgen.devices.emulated import EmulatedDevice
from pconvgen.errors import UsageError
from tests.unit.test_targets import MODEL


@pytest.mark.parametrize(
    ("text", "cores", "short"),
    [("1", (1,), "1"), ("0-3", (0, 1, 2, 3), "0-3"), (" 5, 0 - 2,1", (0, 1, 2, 5), "0-2,5"), ("7-7,2", (2, 7), "2,7")],
)
def test_sets_of_cores(text: str, cores: tuple[int, ...], short: str) -> None:
    assert parse_cores(text) == cores
    assert format_cores(cores) == short


@pytest.mark.parametrize("text", ["", " ", "a", "3-1", "1-", "-1", "1,,2", "0x1", "1;2", "1e3", "999999"])
def test_what_is_no_set_of_cores(text: str) -> None:
    with pytest.raises(UsageError, match=r"no set of cores \(found .*, expected numbers and ranges.*this machine has"):
        parse_cores(text)


def test_threads_need_cores() -> None:
    there = core_numbers()
    assert check_threads(usable_cores()) == there
    assert check_threads(1, [there[-1], there[-1]]) == there[-1:]
    for threads in (0, -1, usable_cores() + 1):
        with pytest.raises(UsageError, match=r"impossible number of threads.*use no more threads than cores"):
            check_threads(threads)
    with pytest.raises(UsageError, match=r"impossible number of threads \(found 2, expected 1 to 1\)"):
        check_threads(2, there[:1])
    for cores in ([], [there[-1] + 1], [*there, 4000]):
        with pytest.raises(UsageError, match="no such cores"):
            check_threads(1, cores)


def test_an_emulated_device_has_no_cores() -> None:
    for call in (EmulatedDevice().run, EmulatedDevice().bench):
        with pytest.raises(UsageError, match=r"no cores to choose from \(found 0-1\); leave --cores out"):
            call(MODEL, {}, cores=(0, 1))
        with pytest.raises(UsageError, match=r"threads? .*found 0"):
            call(MODEL, {}, threads=0)


def test_cores_by_kind() -> None:
    phone = {0: 1800.0, 1: 1800.0, 2: 1800.0, 3: 1800.0, 4: 2400.0, 5: 2400.0, 6: 2400.0, 7: 2840.0}
    assert choose_cores("big", phone) == (7,)
    assert choose_cores("little", phone) == (0, 1, 2, 3)
    assert choose_cores("4-6", phone) == (4, 5, 6)
    with pytest.raises(UsageError, match=r"no big cores \(found one kind of cores\)"):
        choose_cores("big", {0: 1500.0, 1: 1500.0})
    with pytest.raises(UsageError, match=r"no little cores \(found no clocks that it tells\)"):
        choose_cores("little", {})
