"""Bytes of a shape, against the papers and against steps that really ran."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipelab import Cluster, ModelFacts, Pipeline, build_schedule
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.tuning.shapes.memory import memory_of, on_device
from pipelab.tuning.shapes.shape import Job, Shape

LAYERS, WIDTH, TOKENS, BATCH = 8, 32, 16, 16


def measured(p: int, m: int, v: int = 1, layers: int = LAYERS):
    """Bytes on each device, in a step of the course's model with Adam."""
    model = TransformerLM(layers=layers, width=WIDTH, heads=4, tokens=TOKENS)
    schedule = build_schedule("1f1b" if v == 1 else "interleaved", p, m, v)
    with Pipeline(
        model,
        schedule,
        loss=next_byte_loss,
        optimizer=lambda named: torch.optim.Adam([one for _, one in named]),
        clock="unit",
    ) as pipeline:
        return pipeline.step(*text_batch(0, BATCH, TOKENS)).memory


def predicted(p: int, m: int, v: int = 1, facts: ModelFacts | None = None):
    cluster = Cluster.of("a100", 1, per_node=p)
    job = Job(facts or ModelFacts.course(LAYERS, WIDTH, 4, TOKENS), cluster, BATCH)
    shape = Shape(1, p, 1, BATCH // m, m, v)
    assert job.problem(shape) is None
    return [on_device(job, shape, r) for r in range(p)]


@pytest.mark.parametrize(("p", "m", "v"), [(1, 4, 1), (2, 4, 1), (4, 4, 1), (4, 8, 1), (2, 4, 2), (4, 4, 2)])
def test_a_real_step_holds_what_is_predicted_on_every_device(p, m, v):
    for real, told in zip(measured(p, m, v), predicted(p, m, v), strict=True):
        states = real.model_states
        assert (told.weights, told.gradients) == (states.weights, states.gradients)
        assert told.optimizer == pytest.approx(states.optimizer, rel=0.002)  # Adam also counts its steps
        assert told.activations + told.ends + told.buffers == pytest.approx(real.activations, rel=0.05)


def test_a_measured_layer_predicts_other_pipelines():
    deep, shallow = (measured(1, 4, layers=n)[0].activations for n in (8, 4))
    layer = (deep - shallow) / 4 / (BATCH // 4 * TOKENS)
    facts = replace(ModelFacts.course(LAYERS, WIDTH, 4, TOKENS), activation_bytes=layer)
    for real, told in zip(measured(4, 4), predicted(4, 4, facts=facts), strict=True):
        assert told.activations + told.ends + told.buffers == pytest.approx(real.activations, rel=0.05)


GPT3 = ModelFacts.gpt(96, 12288, 96)


def test_gpt_3_on_one_device_needs_what_the_sources_left_out():
    """18 bytes a parameter, not two: the configuration check of a text that the course grew out of."""
    job = Job(GPT3, Cluster.of("a100", 1, per_node=1), 1)
    memory = memory_of(job, Shape(1, 1, 1, 1, 1, 1, "full"))
    assert memory.weights + memory.gradients + memory.optimizer == pytest.approx(18 * GPT3.parameters)


@pytest.mark.parametrize(
    ("sharding", "bytes_a_parameter"), [("none", 18), ("optimizer", 7.5), ("gradients", 4), ("parameters", 2.25)]
)
def test_each_stage_of_zero_splits_one_part_more(sharding, bytes_a_parameter):
    job = Job(replace(GPT3, layers=2), Cluster.of("a100", 1), 8)
    memory = memory_of(job, Shape(8, 1, 1, 1, 1, 1, sharding=sharding))
    states = memory.weights + memory.gradients + memory.optimizer
    assert states == pytest.approx(bytes_a_parameter * job.model.parameters)
    assert (memory.buffers > 0) == (sharding in ("gradients", "parameters"))


def test_recomputation_keeps_less_and_the_first_device_is_the_fullest():
    job = Job(GPT3, Cluster.of("a100", 8), 64)
    none, selective, full = (memory_of(job, Shape(1, 8, 8, 1, 64, 1, how)) for how in ("none", "selective", "full"))
    assert none.activations > selective.activations > full.activations
    assert none.device == 0
    assert selective.activations == pytest.approx(2048 * 12 * 8 * 34 * 12288 / 8, rel=0.03)
    assert str(none).startswith("device 0 of the pipeline: weights")


def test_a_large_vocabulary_fills_the_last_device():
    job = Job(ModelFacts.gpt(8, 1024, 8, vocabulary=10**6, tied=False), Cluster.of("a100", 1, per_node=4), 4)
    assert memory_of(job, Shape(1, 4, 1, 1, 4)).device == 3


def test_tied_weights_live_on_both_ends_of_a_pipeline():
    job = Job(replace(GPT3, layers=2), Cluster.of("a100", 1, per_node=2), 4)
    shape = Shape(1, 2, 1, 1, 4)
    both = sum(on_device(job, shape, r).weights for r in range(2))
    assert both == 2 * (job.model.parameters + job.model.vocabulary * job.model.width)
