"""Each claim is settled by its cell on the page, and comes out otherwise where the experiment is damaged.

A damage makes the claim true where it is false, or the other way round: another schedule, another m, a wrong count.
"""

import pytest

from pipelab.teaching.claims.registry import CLAIMS
from tests.teaching.claims.trying import cells, settled

_SOUND = '"0F0,-,-,0B0\\n-,1F0,1B0,-"'
_TABLE = '"\\n".join(map(",".join, cells))'
_ROWS = 'rows = [[action for action in row if action != "-"] for row in cells]'

DAMAGED = {
    "12-runs": ("false", "true", (_TABLE, _SOUND)),
    "12-done": ("false", "true", ("p, m = 4, 4", "p, m = 4, 2")),
    "12-order": (
        "false",
        "true",
        (_ROWS, 'rows = [[str(a) for a in row] for row in build_schedule("interleaved", 4, 4, 2).programs]'),
    ),
    "12-remark": ("true if", "true", ('cells[2].index("2B0")', 'int(starts["2B0"])')),
    "12-waits": ("false", "true", ('"gpipe", devices=4, microbatches=8', '"naive", devices=4, microbatches=1')),
    "12-ratio": ("true if", "true", ("of_total=gpipe.bubble_fraction", "of_total=gpipe.bubble_ratio")),
    "12-busier": (
        "false",
        "true",
        (
            '(name, devices=4, microbatches=16)) for name in ("gpipe", "1f1b")',
            '("1f1b", devices=4, microbatches=m)) for m in (4, 16)',
        ),
    ),
    "12-constant": ("true if", "true", ("idle(16, 4 / 16)", "idle(16, 1)")),
    "12-warm-up": ("false", "true", ("[3, 3, 3, 3]", "[3, 2, 1, 0]")),
    "12-listing": (
        "false",
        "true",
        ("if k > 0:", "if True:"),
        ("w + k - p + 1", "k"),
        ("m - (p - 1) + k) for k in range(p - 1)", "m - w + k) for k in range(w)"),
    ),
    "12-neighbours": ("false", "true", ("= in_pieces(plain, 2)", '= build_schedule("interleaved", 4, 4, 2)')),
    "12-sorted": ("false", "true", ("backward = forward + n", "backward = 2 * m * n - 1 - forward")),
    "12b-held": ("true", "false", ('"1f1b", p, m', '"gpipe", p, m')),
    "12b-tight": ("false", "true", ("microbatches=16)", 'microbatches=16, recompute=name == "gpipe")')),
    "12b-wall": ("true if", "false", ("64, 128)", "64, 64)")),
    "12b-gpt3": (
        "false",
        "true",
        ("kept = [layer.weight, layer.weight.grad, master, *moments]", "kept = [layer.weight]"),
    ),
    "12b-recompute": ("true if", "true", ("backward=1)", "backward=2)")),
    "12b-divides": (
        "true if",
        "false",
        ("return timeline.makespan - timeline.busy[0]", "return timeline.bubble_fraction"),
    ),
    "12b-messages": ("true if", "true", ("more(4, 2)", "more(64, 2)")),
    "12b-four-p": ("true if", "true", ('"gpipe", 4, 16', '"gpipe", 4, 600'), ('"gpipe", 64, 256', '"gpipe", 2, 256')),
    "12b-zero": ("true if", "true", ("backward=1.5", "backward=2"), ("weight_gradient=0.5", "weight_gradient=1")),
    "12b-v-min": ("true if", "false", ('"v-min"', '"v-half"')),
    "12b-chimera": ("true if", "true", ("backward=2)", "backward=1)")),
    "12c-each": ("false", "true", ('"1f1b"', '"pipedream"')),
    "12c-mean": ("true if", "true", ("averaged(m) for m in (8", "averaged(m, weigh=True) for m in (8")),
    "12c-sequential": ("true if", "true", ("BatchNorm1d", "LayerNorm")),
    "12c-parity": ("false", "true", ('"2bw"', '"pipedream"'), ("Action(0, ", "Action(3, ")),
    "12c-two": ("true if", "true", ("microbatches=3", "microbatches=5")),
    "12c-copies": ("false", "true", ("net.layers[k].state_dict()", "net.layers[2 * s + k].state_dict()")),
    "12c-sums": (
        "false",
        "true",
        ("summed |= dict.fromkeys(same, sum(found[one] for one in same))", "assert set(same) <= set(found)"),
    ),
    "12c-stash": ("false", "true", ("names[0] & names[1]", "names[1] & names[1]")),
    "12c-sync": (
        "false",
        "true",
        ("in simulate(table).spans", 'in simulate(table, Costs(latency=float(name == "vertical-sync"))).spans'),
    ),
    "12c-bf16": ("true if", "false", ("compression=packing", "compression=None")),
    "12d-greedy": ("false", "true", ("[10, 1, 1, 1], [6, *[2] * 12, 12]", "[1] * 4, [2] * 16")),
    "12d-unlike": ("false", "true", ("[4, 2, 1, 1], 16", "[1, 1, 1, 1], 4")),
    "12d-irecv": (
        "true if",
        "true",
        ("early = int(tensor.sum())\n    request.wait()", "request.wait()\n    early = int(tensor.sum())"),
    ),
    "12d-ratio": ("false", "true", ("[s for s in (1, 2, 3, 4, 6, 12) if s >= needed]", "[6]")),
    "12d-root": ("true if", "true", ("best_size(0.5)", "best_size(3)"), ("best_size(12)", "best_size(3)")),
    "12d-node": ("true if", "false", ("slow=planned(4)", "slow=planned(8)")),
    "12d-parallel": ("false", "true", ("who(replicated)", "who(pipelined)")),
    "12d-apart": ("false", "true", ('"1f1b", 4, 4', '"1f1b", 1, 4')),
    "12d-latency": ("false", "true", ("forward=4 / devices", "forward=4 / devices**2")),
    "12d-printed": ("false", "true", ("p, batch, size = 3, 8, 4", "p, batch, size = 3, 92, 4")),
    "12d-private": (
        "false",
        "true",
        ("sent, secret = leaving(1)", "_, secret = leaving(1)\nsent = torch.randn_like(seen)"),
    ),
}
"""Claim -> the verdict of its cell, the verdict of the damaged cell, and what is damaged."""

SLOW = {"12b-tight", "12c-mean", "12d-irecv"}


def kind(verdict):
    return "true if" if verdict.startswith("true if") else verdict


def test_every_claim_is_settled_by_one_cell_and_damaged_here():
    assert set(cells()) == set(CLAIMS)
    assert set(DAMAGED) == set(CLAIMS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CLAIMS]
)
@pytest.mark.filterwarnings("ignore")
def test_the_verdict_changes_where_the_experiment_is_damaged(name):
    verdict, other, *damage = DAMAGED[name]
    assert kind(settled(name).verdict) == verdict
    assert kind(settled(name, *damage).verdict) == other
