"""What lesson 2's exercises have in common."""

from random import Random

import pytest

from pipelab.teaching.exercises import exercise
from tests.teaching.exercises.trying import messages


@pytest.mark.parametrize("name", ["serial", "gpipe", "bubbles", "accumulate"])
def test_drawn_cases_are_of_every_part_or_its_visible_ones_decide(name):
    for seed in range(20):
        drawn = {case.part for case in exercise(name).drawn(Random(seed))}
        assert drawn <= set(exercise(name).parts)
        assert len(drawn) >= 2


@pytest.mark.parametrize(
    "given", [[], [[], []], "0F0", 7, [["0F0"]], {"0": "0F0"}, [["x"]] * 2, "rows", "fused", "idle"]
)
def test_what_is_no_table_gets_a_sentence(given):
    strange = {
        "rows": lambda p, m: [[f"{r}F{i}" for i in range(m)] for r in range(p)],
        "fused": lambda p, m: [[f"({r}F{i};{r}B{i})OVERLAP_F_B" for i in range(m)] for r in range(p)],
        "idle": lambda p, m: [[f"0{op}{i}" for op in "FB" for i in range(m)], *([] for _ in range(p - 1))],
    }
    function = strange.get(given, lambda p, m: given) if isinstance(given, str) else lambda p, m: given
    assert len(messages("gpipe", gpipe=function)) >= 2
    assert (
        len(
            messages(
                "serial",
                serial_rows=function,
                serial_makespan=lambda p, m, f, b, sent: m * (p * (f + b) + 2 * (p - 1) * sent),
            )
        )
        == 1
    )
