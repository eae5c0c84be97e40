"""Makes the reports of a pipeline's steps from what its devices have noted down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipelab.quantities import ModelStates
from pipelab.runtime.device.log import DeviceLog
from pipelab.runtime.device.program import compile_table
from pipelab.runtime.report import (
    CostHistory,
    SlotTable,
    StepRecord,
    StepReport,
    merge_logs,
    slot_table,
    verify_order,
)
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.steps.flight import part_of
from pipelab.schedules.schedule import Schedule

__all__ = ["Reports"]

_TABLES = 64
"""So many tables are kept, those used last: batches of ever other sizes would make one each."""


class Reports:
    """Makes the reports of a pipeline's steps. ``places`` are where its devices keep their tensors."""

    def __init__(self, settings: Settings, places: Sequence[torch.device]) -> None:
        self._settings, self._on_cpu = settings, all(place.type == "cpu" for place in places)
        self._tables: dict[Any, tuple[Schedule, CostHistory]] = {}

    def make(self, record: StepRecord) -> StepReport:
        """Raises PipelabError if the devices did not keep the order."""
        settings = self._settings
        schedule, history = self._table(record)
        logs = _logs(schedule, record, settings.shown_speeds)
        logs = merge_logs(schedule, logs, record.offsets, on_device=record.on_device)
        past: tuple[SlotTable, ...] = ()
        if settings.measure_costs:
            verify_order(schedule, logs, record.slack)
            past = history.add(slot_table(logs))
        return StepReport(
            schedule=schedule,
            logs=logs,
            clock=settings.clock,
            batch=record.batch,
            sequences=record.batch if record.part is None else sum(record.part[2]),
            past=past,
            unit_costs=settings.unit_costs,
            links=settings.links,
            loss=record.loss,
            step=record.number,
            worker_cpu_seconds=record.cpu if self._on_cpu else math.nan,
            peak_activation_bytes=tuple(log.peak for log in logs),
            peak_allocated_bytes=tuple(log.allocated for log in logs),
            gradient_norm=record.norm,
            skipped=record.skipped,
            stepped_early=record.stepped_early,
            rolled_back=record.rolled_back,
            weight_versions=() if record.part is None else tuple(log.versions for log in logs),
            outputs=record.outputs,
            stash=settings.stash,
            speeds=settings.shown_speeds,
            speeds_note=settings.speeds_note,
            reductions=tuple(one.later(record.offsets[one.device]) for one in record.reductions),
        )

    def _table(self, record: StepRecord) -> tuple[Schedule, CostHistory]:
        """The table with the weights that this batch gives it, and what its slots have cost."""
        training, batch = record.training, record.batch
        key: Any = (training, batch)
        schedule = self._settings.schedule
        if record.part is not None:
            steps, drain, sizes = record.part
            schedule = part_of(schedule, steps, drain=drain)
            key = (id(schedule), sizes)
        found = self._tables.pop(key, None)
        if found is None:
            part = schedule if training or schedule.forward_only else schedule.forward_part()
            made = part.for_batch(batch) if record.part is None else part.with_sizes(record.part[2])
            found = made, CostHistory(self._settings.window)
        self._tables[key] = found
        if len(self._tables) > _TABLES:
            del self._tables[next(iter(self._tables))]
        return found


def _logs(schedule: Schedule, record: StepRecord, speeds: Sequence[float]) -> Sequence[DeviceLog]:
    """What each device noted down, on its own clock; what its update cost, at its speed."""
    logs = record.logs
    if isinstance(logs, np.ndarray):
        programs = compile_table(schedule).programs
        logs = [DeviceLog.from_numbers(row, program) for row, program in zip(logs.tolist(), programs, strict=True)]
    for log, speed, told in zip(logs, speeds, record.updates, strict=False):
        weights, gradients, optimizer, early, cost, _, versions = told
        log.early_cost, log.update_cost = early / speed, cost / speed
        log.model_states = ModelStates(int(weights), int(gradients), int(optimizer))
        log.versions = int(versions)
    return logs
