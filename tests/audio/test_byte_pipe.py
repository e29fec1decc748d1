"""Bytes in one direction and samples in the other, both bounded; the end of one side ends the other."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from conure.audio.byte_pipe import MAX_UNREAD_BYTES, MAX_WAITING_SAMPLES, BytePipe, PipeAbandoned
from conure.errors import UnsupportedAudio

TIMEOUT = 60.0


def start_decoder(pipe, size=100):
    """Starts a decoder on a thread that returns each byte as a sample."""

    def decode():
        try:
            while data := pipe.read(size):
                pipe.push_samples(np.frombuffer(data, np.uint8).astype(np.float32))
            pipe.finish(None)
        except PipeAbandoned:
            pipe.finish(None)

    thread = threading.Thread(target=decode)
    thread.start()
    return thread


def test_samples_are_returned_with_their_bytes():
    pipe = BytePipe()
    thread = start_decoder(pipe)
    for data in (bytes(range(250)), b"", b"\x07"):
        pipe.push_bytes(data)
        assert pipe.take_samples(TIMEOUT, TIMEOUT).tolist() == list(data)
    pipe.end()
    assert len(pipe.take_samples(TIMEOUT, TIMEOUT)) == 0
    thread.join()


def test_a_push_waits_while_too_many_bytes_are_unread():
    pipe = BytePipe()
    pipe.push_bytes(bytes(MAX_UNREAD_BYTES))
    assert not pipe.is_full
    assert len(pipe.take_samples(0.0, 0.0)) == 0
    pipe.push_bytes(b"1")
    assert pipe.is_full
    with pytest.raises(UnsupportedAudio, match=f"{MAX_UNREAD_BYTES + 1} bytes are unread"):
        pipe.take_samples(0.0, 0.0)
    thread = start_decoder(pipe, 1_000)
    pipe.take_samples(0.0, TIMEOUT)
    assert not pipe.is_full
    pipe.abandon()
    thread.join()


def test_the_decoder_waits_while_too_many_samples_are_not_taken():
    pipe = BytePipe()
    pipe.push_bytes(bytes(4 * MAX_WAITING_SAMPLES))
    pipe.end()
    thread = start_decoder(pipe, MAX_WAITING_SAMPLES // 2)
    assert len(pipe.take_samples(0.0, TIMEOUT)) == 4 * MAX_WAITING_SAMPLES
    thread.join()


@pytest.mark.parametrize("error", [None, UnsupportedAudio("broken")])
def test_a_finished_decoder_ends_the_caller(error):
    pipe = BytePipe()
    pipe.push_bytes(b"12345")
    pipe.finish(error)
    pipe.push_bytes(b"678")
    assert pipe.surplus_bytes == 8
    if error is None:
        assert len(pipe.take_samples(TIMEOUT, TIMEOUT)) == 0
    else:
        with pytest.raises(UnsupportedAudio, match="broken"):
            pipe.take_samples(TIMEOUT, TIMEOUT)


def test_an_abandoned_pipe_is_at_its_end():
    pipe = BytePipe()
    pipe.push_bytes(b"12345")
    pipe.abandon()
    assert pipe.read(1) == b""
    with pytest.raises(PipeAbandoned):
        pipe.push_samples(np.zeros(2 * MAX_WAITING_SAMPLES, np.float32))
