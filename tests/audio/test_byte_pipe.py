"""Bytes one way and samples the other, both bounded; every end of one side is told to the other."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from conure.audio.byte_pipe import UNREAD_MOST, UNTAKEN_MOST, BytePipe, PipeAbandoned
from conure.errors import UnsupportedAudio

LONG = 60.0


def copying(handover, size=100):
    """A decoder on its thread that makes a sample of each byte."""

    def decode():
        try:
            while data := handover.read(size):
                handover.push_samples(np.frombuffer(data, np.uint8).astype(np.float32))
            handover.finish(None)
        except PipeAbandoned:
            handover.finish(None)

    thread = threading.Thread(target=decode)
    thread.start()
    return thread


def test_samples_come_with_the_bytes_they_are_made_of():
    handover = BytePipe()
    thread = copying(handover)
    for data in (bytes(range(250)), b"", b"\x07"):
        handover.push_bytes(data)
        assert handover.take_samples(LONG, LONG).tolist() == list(data)
    handover.end()
    assert len(handover.take_samples(LONG, LONG)) == 0
    thread.join()


def test_a_push_waits_while_too_many_bytes_are_unread():
    handover = BytePipe()
    handover.push_bytes(bytes(UNREAD_MOST))
    assert not handover.is_full
    assert len(handover.take_samples(0.0, 0.0)) == 0
    handover.push_bytes(b"1")
    assert handover.is_full
    with pytest.raises(UnsupportedAudio, match=f"{UNREAD_MOST + 1} bytes wait"):
        handover.settle(0.0, 0.0)
    thread = copying(handover, 1_000)
    handover.settle(0.0, LONG)
    assert not handover.is_full
    handover.abandon()
    thread.join()


def test_the_decoder_waits_while_too_many_samples_are_untaken():
    handover = BytePipe()
    handover.push_bytes(bytes(4 * UNTAKEN_MOST))
    handover.end()
    thread = copying(handover, UNTAKEN_MOST // 2)
    assert len(handover.take_samples(0.0, LONG)) == 4 * UNTAKEN_MOST
    thread.join()


@pytest.mark.parametrize("error", [None, UnsupportedAudio("broken")])
def test_when_the_decoder_leaves_nobody_waits(error):
    handover = BytePipe()
    handover.push_bytes(b"12345")
    handover.finish(error)
    handover.push_bytes(b"678")
    assert handover.left_over == 8
    if error is None:
        assert len(handover.take_samples(LONG, LONG)) == 0
    else:
        with pytest.raises(UnsupportedAudio, match="broken"):
            handover.take_samples(LONG, LONG)


def test_for_an_abandoned_decoder_it_is_the_end():
    handover = BytePipe()
    handover.push_bytes(b"12345")
    handover.abandon()
    assert handover.read(1) == b""
    with pytest.raises(PipeAbandoned):
        handover.push_samples(np.zeros(2 * UNTAKEN_MOST, np.float32))
