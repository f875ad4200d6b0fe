"""The cache: same key same file, other key other file, damage is noticed, two processes train once."""

import dataclasses
import multiprocessing
import time

import pytest
import torch

from implementations.common import cache

MODULE = "implementations.common.metrics"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    return tmp_path


def counted():
    calls = []

    def build():
        calls.append(1)
        return {"a": torch.arange(4.0, device="cpu"), "b": torch.ones(2, 2, dtype=torch.int64, device="cpu")}

    return calls, build


def test_built_once_then_read():
    calls, build = counted()
    first = cache.cached("thing", MODULE, {"seed": 1}, build, "cpu")
    second = cache.cached("thing", MODULE, {"seed": 1}, build, "cpu")
    assert len(calls) == 1
    assert all(torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first)


@pytest.mark.parametrize("key", [{"seed": 2}, {"seed": 1.0}, {"seed": "1"}, {"Seed": 1}, [1], None])
def test_another_key_is_built_anew(key):
    calls, build = counted()
    cache.cached("thing", MODULE, {"seed": 1}, build, "cpu")
    cache.cached("thing", MODULE, key, build, "cpu")
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", None, "flip"])
def test_damaged_files_are_built_again(own_folder, damage, caplog):
    calls, build = counted()
    cache.cached("thing", MODULE, 1, build, "cpu")
    (path,) = own_folder.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 0xFF  # a bit in the data: the format is fine, the checksum is not
        path.write_bytes(bytes(content))
    else:
        path.write_bytes(bytes(content[:40]) if damage is None else damage)
    again = cache.cached("thing", MODULE, 1, build, "cpu")
    assert len(calls) == 2
    assert torch.equal(again["a"], torch.arange(4.0, device="cpu"))
    assert "built again" in caplog.text


def test_a_failed_build_leaves_nothing(own_folder):
    def build():
        raise RuntimeError("training failed")

    with pytest.raises(RuntimeError):
        cache.cached("thing", MODULE, 1, build, "cpu")
    assert not list(own_folder.glob("*.safetensors"))


def slow_build(folder, queue):
    import os

    os.environ["INVERSION_ATLAS_CACHE"] = folder

    def build():
        queue.put(1)
        time.sleep(0.5)
        return {"a": torch.ones(1, device="cpu")}

    cache.cached("thing", MODULE, 1, build, "cpu")


def test_two_processes_build_once(own_folder):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=slow_build, args=(str(own_folder), queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert queue.get(timeout=5) == 1
    assert queue.empty()


def test_content_hash_knows_structure():
    @dataclasses.dataclass
    class Box:
        a: int = 1

    values = [[1, 2], [[1], 2], [12], ["1", 2], {"a": 1}, Box(), Box(2), [1, None, 2], [True, 2], torch.ones(2, device="cpu")]
    values += [torch.ones(2, 1, device="cpu"), torch.ones(2, dtype=torch.float64, device="cpu")]
    assert len({cache.content_hash(value) for value in values}) == len(values)
    with pytest.raises(TypeError, match="function"):
        cache.content_hash(lambda: 1)


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    cache.write_atomically(path, "old")
    monkeypatch.setattr(cache.os, "replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        cache.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
