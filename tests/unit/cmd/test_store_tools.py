"""The tools of `korch store` on real files: round trips, damage, and a backup of a store that is being written to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from korch._core import native
from korch.cmd.main import main
from korch.runtime.context import Runtime
from korch.storage import Storage

HEAD = b'{"kind":"ConfigMap","metadata":{"resourceVersion":"'


def put(key: str, body: Any, expected: int | None = 0) -> Any:
    return f"/registry/core/{key}".encode(), HEAD + b'"},"data":' + orjson.dumps(body) + b"}", expected, len(HEAD), {"app": "x"}, {}, ("u",)


def korch(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["store", *(str(one) for one in arguments)])


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """Give a data directory whose store has some history and is closed."""
    storage = Storage.open(str(tmp_path / "data" / "server" / "store"), Runtime())
    for index in range(30):
        await storage.commit([put(f"configmaps/default/m{index:02}", {"index": str(index)}), put(f"secrets/default/s{index:02}", "hidden")])
    record = storage.get(b"/registry/core/configmaps/default/m00")
    assert record is not None
    await storage.commit([put("configmaps/default/m00", {"index": "new"}, record.mod_revision)])
    await storage.commit([(b"/registry/core/configmaps/default/m01", None, None, -1, {}, {}, ())])
    await storage.close()
    return tmp_path / "data"


def contents(store: native.Store) -> dict[bytes, bytes]:
    page = store.range(b"/registry/")
    return dict(zip(page.keys, page.values, strict=True))


def test_a_backup_is_restored_to_the_same_objects_revisions_and_indexes(data: Path, tmp_path: Path) -> None:
    assert "59 objects" in said(korch("backup", tmp_path / "b", "--data-dir", data))
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0
    assert "sound, 59 keys" in said(korch("verify", tmp_path / "b"))
    said(korch("restore", tmp_path / "b", "--data-dir", tmp_path / "new"))
    before = native.Store.inspect(str(data / "server" / "store"))
    after = native.Store(str(tmp_path / "new" / "server" / "store"))
    assert contents(after) == contents(before) and after.revision() == before.revision()
    assert after.by_owner("u") == before.by_owner("u")
    revision, _ = after.commit([put("configmaps/default/m00", {"index": "newer"}, None)])
    assert revision == before.revision() + 1
    after.flush()
    after.close()
    before.close()
    assert "sound, 59 keys" in said(korch("verify", "--data-dir", tmp_path / "new"))


def test_nothing_that_is_there_is_overwritten(data: Path, tmp_path: Path) -> None:
    said(korch("backup", tmp_path / "b", "--data-dir", data))
    again = korch("backup", tmp_path / "b", "--data-dir", data)
    assert again.exit_code == 1 and "exists" in again.output
    restored = korch("restore", tmp_path / "b", "--data-dir", data)
    assert restored.exit_code == 1 and "is not empty" in restored.output
    assert "sound, 59 keys" in said(korch("verify", "--data-dir", data))


def test_every_damaged_byte_of_a_backup_is_found_and_never_restored(data: Path, tmp_path: Path) -> None:
    said(korch("backup", tmp_path / "b", "--data-dir", data))
    whole = (tmp_path / "b").read_bytes()
    bad = tmp_path / "bad"
    for at in [*range(80), *range(80, len(whole), 97), len(whole) - 1]:
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        with pytest.raises((native.StoreCorrupt, ValueError)):
            native.Store.inspect(str(bad))
    for length in (0, 10, 76, 90, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:length])
        with pytest.raises(native.StoreCorrupt):
            native.Store.inspect(str(bad))
    verified = korch("verify", bad)
    assert verified.exit_code == 1 and "bad is corrupt at offset" in verified.output
    restored = korch("restore", bad, "--data-dir", tmp_path / "new")
    assert restored.exit_code == 1 and "corrupt at offset" in restored.output
    assert not list((tmp_path / "new" / "server").glob("store/*"))


def test_damage_in_the_middle_of_a_log_is_told_with_its_offset_and_a_torn_end_is_not_damage(data: Path) -> None:
    [log] = [file for file in (data / "server" / "store").glob("log-*") if file.stat().st_size]
    whole = log.read_bytes()
    end = len(whole.rstrip(b"\0"))
    log.write_bytes(whole[: end // 2] + bytes([whole[end // 2] ^ 0x20]) + whole[end // 2 + 1 :])
    damaged = korch("verify", "--data-dir", data)
    assert damaged.exit_code == 1 and f"{log.name} is corrupt at offset" in damaged.output
    log.write_bytes(whole[: end - 3] + bytes(len(whole) - end + 3))
    before = log.read_bytes()
    torn = said(korch("verify", "--data-dir", data))
    assert "sound" in torn and "never answered" in torn
    assert log.read_bytes() == before


def test_an_export_holds_every_object_once_and_secrets_only_when_asked(data: Path) -> None:
    shown = korch("export", "--json", "--data-dir", data)
    objects = [orjson.loads(line) for line in said(shown).splitlines()]
    assert len(objects) == 29 and objects[0]["data"] == {"index": "new"} and objects[0]["metadata"]["resourceVersion"] != ""
    assert "30 Secrets were left out" in shown.stderr and "hidden" not in shown.stdout
    everything = said(korch("export", "--json", "--include-secrets", "--data-dir", data)).splitlines()
    assert len(everything) == 59


def test_stats_count_objects_and_bytes_by_resource(data: Path) -> None:
    found = orjson.loads(said(korch("stats", "-o", "json", "--data-dir", data)))
    assert found["resources"]["core/configmaps"]["objects"] == 29 and found["resources"]["core/secrets"]["objects"] == 30
    assert found["revision"] == 33 and "core/secrets" in said(korch("stats", "--data-dir", data))


async def test_a_backup_of_a_store_that_is_written_to_is_of_one_moment(tmp_path: Path) -> None:
    """Two keys are always written together: a backup that mixed moments would show them differing."""
    storage = Storage.open(str(tmp_path / "store"), Runtime())
    filler = [put(f"configmaps/m/{index:04}", "x" * 2000) for index in range(3000)]
    await storage.commit(filler)
    number, is_done = 0, False

    async def write() -> None:
        nonlocal number
        while not is_done:
            number += 1
            await storage.commit([put("configmaps/a/first", number, None), put("configmaps/z/last", number, None)])

    writer = asyncio.ensure_future(write())
    seen: list[int] = []
    for index in range(5):
        goal = number + 20
        while number < goal:
            await asyncio.sleep(0)
        directory = tmp_path / f"b{index}"
        revision, name = await asyncio.to_thread(storage.native.backup, str(directory))
        found = native.Store.inspect(str(directory / name))
        first, last = (found.get(f"/registry/core/configmaps/{key}".encode()) for key in ("a/first", "z/last"))
        assert first is not None and last is not None and found.revision() == revision
        assert orjson.loads(first.value)["data"] == orjson.loads(last.value)["data"]
        seen.append(orjson.loads(first.value)["data"])
    is_done = True
    await writer
    assert seen == sorted(set(seen)) and seen[0] > 0
    await storage.close()
