"""Joining parts on a disk moves no byte through the process, as the system calls show."""

import hashlib
import re

import pytest
from conftest import FULL
from test_crash import agent  # noqa: F401 - a fixture

MiB = 1024 * 1024
PART = (64 if FULL else 8) * MiB
MOVING = "read,readv,pread64,preadv,preadv2,write,writev,pwrite64,pwritev,sendfile,splice,copy_file_range"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "size"),
    [(range(1, 17), PART), ([2, 1, *range(3, 17)], PART)],
    ids=["in order", "first two swapped"],
)
def test_what_an_assembly_moves_on_a_disk(agent, tmp_path, order, size):  # noqa: F811
    worker = agent(tmp_path)
    for number in order:
        assert worker.ask("part", number=number, seed=number, size=size)["ok"]
    log = tmp_path / "log"
    with worker.strace(log, f"trace={MOVING}"):
        said = worker.ask("assemble", key="whole")
    worker.end()
    digest = hashlib.sha256()
    with (tmp_path / "final" / "whole").open("rb") as file:
        while piece := file.read(MiB):
            digest.update(piece)
        assert file.tell() == 16 * size
    assert said == {"ok": digest.hexdigest()}
    moved = re.findall(r" (\w+)(?:\(| resumed>).*\) += (\d+)$", log.read_text(), re.MULTILINE)
    copied = sum(int(count) for call, count in moved if call == "copy_file_range")
    passed = sum(int(count) for call, count in moved if call != "copy_file_range")
    assert copied == 16 * size
    if order[0] == 1:
        assert passed < MiB
    else:  # no part after the second could carry on what there was not
        assert 15 * size <= passed < 15 * size + MiB
