"""A pipeline's own words."""

from pipelab.schedules import Action, build_schedule


def test_a_pipeline_speaks_of_devices_micro_batches_and_ops():
    words = build_schedule("1f1b", devices=4, microbatches=4).words
    action = Action(3, "B", 1)
    assert words.device(2) == "device 2"
    assert (words.action(action), words.slot((Action(4, "F", 1), action))) == ("3B1", "(4F1;3B1)OVERLAP_F_B")
    assert words.in_full(action) == "backward of micro-batch 1, stage 3"
    assert words.group((Action(4, "F", 1), action)) == "F+B"
    assert words.comes(action) is None
