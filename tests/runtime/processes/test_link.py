import os
import threading

import pytest

from pipelab.runtime.processes.link import Link


def test_messages_of_any_size_arrive_whole_and_in_order():
    here, there = Link.pair()
    big = {"data": os.urandom(3_000_000)}
    sender = threading.Thread(target=lambda: [here.send(message) for message in ("first", big, None)])
    sender.start()
    assert [there.receive()[0] for _ in range(3)] == ["first", big, None]
    sender.join()


def test_open_files_travel_along(tmp_path):
    here, there = Link.pair()
    with (tmp_path / "a").open("w+") as a, (tmp_path / "b").open("w+") as b:
        here.send("two files", [a.fileno(), b.fileno()])
        message, files = there.receive()
        assert message == "two files"
        os.write(files[1], b"written at the other end")
        for file in files:
            os.close(file)
    assert (tmp_path / "b").read_text() == "written at the other end"


def test_a_closed_end_is_an_end_of_file_at_the_other():
    here, there = Link.pair()
    here.close()
    with pytest.raises(EOFError):
        there.receive()
    with pytest.raises(EOFError):
        there.send("anyone there?")
