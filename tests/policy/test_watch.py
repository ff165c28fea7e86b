from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.policy.watch import Watch


async def nothing() -> None:
    return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text("one")
    return tmp_path


def in_place(folder: Path) -> None:
    (folder / "p.yaml").write_text("two")


def renamed_over(folder: Path) -> None:
    (folder / ".p.yaml.swp").write_text("two")
    (folder / ".p.yaml.swp").rename(folder / "p.yaml")


def same_size_and_time(folder: Path) -> None:
    before = (folder / "p.yaml").stat()
    (folder / "p.yaml").write_text("two")
    os.utime(folder / "p.yaml", ns=(before.st_atime_ns, before.st_mtime_ns))


def added(folder: Path) -> None:
    (folder / "q.yaml").write_text("more")


def removed(folder: Path) -> None:
    (folder / "p.yaml").unlink()


def given_another_name(folder: Path) -> None:
    (folder / "p.yaml").rename(folder / "r.yaml")


@pytest.mark.parametrize("edit", [in_place, renamed_over, same_size_and_time, added, removed, given_another_name])
def test_every_way_to_edit_is_seen_once(folder: Path, edit: Callable[[Path], None]) -> None:
    watch = Watch(folder, nothing)
    assert not watch.check()
    edit(folder)
    assert [watch.check() for _ in range(4)] == [False, True, False, False]


def test_what_is_still_being_written_is_waited_for(folder: Path) -> None:
    watch = Watch(folder, nothing)
    seen = []
    for text in ("t", "tw", "two", "two", "two"):
        (folder / "p.yaml").write_text(text)
        seen.append(watch.check())
    assert seen == [False, False, False, True, False]


def test_a_config_map_swap(tmp_path: Path) -> None:
    def version(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.yaml").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    version("..2026_1", "one")
    (tmp_path / "p.yaml").symlink_to("..data/p.yaml")
    watch = Watch(tmp_path, nothing)
    version("..2026_2", "two")
    assert [watch.check() for _ in range(3)] == [False, True, False]
    version("..2026_3", "two")
    assert [watch.check() for _ in range(3)] == [False, False, False], "the same bytes are no edit"


def test_an_edit_taken_back_before_it_counted_is_none(folder: Path) -> None:
    watch = Watch(folder, nothing)
    in_place(folder)
    assert not watch.check()
    (folder / "p.yaml").write_text("one")
    assert [watch.check() for _ in range(3)] == [False, False, False]


def test_a_folder_that_goes_away_and_comes_back(folder: Path) -> None:
    watch = Watch(folder, nothing)
    folder.rename(folder.with_name("away"))
    assert [watch.check() for _ in range(3)] == [False, True, False]
    folder.with_name("away").rename(folder)
    assert [watch.check() for _ in range(3)] == [False, True, False]


def test_files_that_are_no_policy_are_not_watched(folder: Path) -> None:
    watch = Watch(folder, nothing)
    (folder / "p.test.yaml").write_text("x")
    (folder / "notes.txt").write_text("x")
    assert [watch.check() for _ in range(3)] == [False, False, False]


async def test_a_reload_that_fails_does_not_end_the_watch(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    reloads: asyncio.Queue[str] = asyncio.Queue()

    async def reload() -> None:
        reloads.put_nowait((folder / "p.yaml").read_text())
        raise RuntimeError("broken")

    running = asyncio.create_task(Watch(folder, reload, interval=0.001).run())
    try:
        for text in ("two", "three"):
            (folder / "p.yaml").write_text(text)
            assert await asyncio.wait_for(reloads.get(), 10) == text
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert "the last good policy stays" in caplog.text
