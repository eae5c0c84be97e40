"""What the coder stores is enough for a decoder, blocks are found where they were, and orders respect references."""

import numpy as np
import pytest

from pipelab.teaching.flows.video import (
    BUDGET,
    Coding,
    Frame,
    Packet,
    coding_order,
    decode,
    decode_video,
    estimate_motion,
    make_scene,
    psnr,
    quantise,
    transform,
)

SCENE = make_scene(5, height=96, width=128, seed=1)


def code(order, budget=BUDGET, references=None):
    """Packets and decoded frames; ``references`` replace the decoded frames as what is predicted from."""
    packets, done = [], {}
    for frame in order:
        known = [(done if references is None else references)[shown] for shown in frame.references]
        coding = quantise(transform(estimate_motion(frame, SCENE[frame.shown], *known)), budget)
        packet, done[frame.shown] = decode(coding)
        packets.append(packet)
    return packets, done


@pytest.mark.parametrize("between", [0, 1, 3])
def test_a_decoder_with_packets_only_has_the_coders_frames(between):
    packets, done = code(coding_order(5, between))
    again = decode_video(packets, 96, 128)
    assert sorted(again) == list(range(5))
    assert all((again[shown] == done[shown]).all() for shown in range(5))


def test_pictures_are_near_to_the_scene_and_small():
    packets, done = code(coding_order(5, 1))
    assert all(psnr(SCENE[shown], done[shown]) > 35 for shown in range(5))
    assert all(len(packet.levels) <= BUDGET[packet.frame.kind] for packet in packets)
    assert sum(packet.size for packet in packets) < SCENE.size / 2


def test_predicting_from_frames_that_no_decoder_has_drifts():
    tight = {"I": 2500, "P": 600, "B": 300}
    order = coding_order(5, 0)
    honest = decode_video(code(order, tight)[0], 96, 128)
    broken = decode_video(code(order, tight, references=SCENE)[0], 96, 128)
    assert psnr(SCENE[4], broken[4]) < psnr(SCENE[4], honest[4]) - 1


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-6, 6)])
def test_a_picture_that_moved_is_found_where_it_was(shift):
    wide = make_scene(1, height=128, width=160)[0]
    before = wide[16:112, 16:144]
    now = wide[16 + shift[0] : 112 + shift[0], 16 + shift[1] : 144 + shift[1]]
    (found,) = estimate_motion(Frame(1, "P", (0,)), now, before).packet.shifts
    assert (found[1:-1, 1:-1] == shift).all()


def test_a_b_frame_takes_each_block_from_the_better_side():
    """The left half was seen before, the right half is seen behind it."""
    picture, other = SCENE[0], 255 - SCENE[0]
    before = np.hstack([picture[:, :64], other[:, 64:]])
    behind = np.hstack([other[:, :64], picture[:, 64:]])
    coding = estimate_motion(Frame(1, "B", (0, 2)), picture, before, behind)
    assert (coding.packet.choice == np.repeat([0, 1], 4)).all()
    assert not coding.numbers.any()


def test_the_transform_is_the_cosine_transform_and_keeps_energy():
    numbers = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    waves = transform(Coding(Packet(Frame(0, "I")), SCENE[0], numbers)).numbers
    k = np.arange(8)
    basis = np.cos((2 * k + 1) * k[:, None] * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    assert waves[8:, :8] == pytest.approx(basis @ numbers[8:, :8] @ basis.T, abs=1e-5)
    assert (waves**2).sum() == pytest.approx((numbers**2).sum(), rel=1e-5)


def test_a_frame_gets_the_finest_step_that_fits():
    coding = transform(estimate_motion(Frame(0, "I"), SCENE[0]))
    steps = [quantise(coding, {"I": size}).packet.step for size in (500, 2000, 8000)]
    assert steps[0] > steps[1] > steps[2]


@pytest.mark.parametrize("between", [0, 1, 2, 5])
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_every_order_has_each_frame_once_behind_its_references(between, ahead):
    order = coding_order(13, between, ahead)
    assert sorted(frame.shown for frame in order) == list(range(13))
    for place, frame in enumerate(order):
        assert {*frame.references} <= {earlier.shown for earlier in order[:place]}
        assert len(frame.references) == "IPB".index(frame.kind)


def test_the_usual_order_and_one_with_a_reference_ahead():
    assert " ".join(map(str, coding_order(7, 2))) == "I0 P3 B1 B2 P6 B4 B5"
    assert " ".join(map(str, coding_order(7, 2, ahead=1))) == "I0 P3 P6 B1 B2 B4 B5"
    assert " ".join(map(str, coding_order(6, 2))) == "I0 P3 B1 B2 P5 B4"
