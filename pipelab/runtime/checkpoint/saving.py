"""What an engine needs to save, to load, and to hand over to another: the same for all kinds of engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.quantities import parse_speeds
from pipelab.runtime.checkpoint.folder import Checkpoint
from pipelab.runtime.faults.where import OUTSIDE, SAVING
from pipelab.runtime.peers import Peers, note
from pipelab.runtime.setup.by_name import TensorsByName
from pipelab.runtime.setup.optimizer_state import OptimizerState, merge, on_cpu
from pipelab.runtime.setup.settings import Settings
from pipelab.schedules.updates import under_way

__all__ = ["Saving"]

T = TypeVar("T")
U = TypeVar("U")

_UNEVEN = (
    "Stages may differ in how many updates they have made, and nothing is under way any more. Load a checkpoint, "
    "load(folder), before you train on or save; load_state_dict(state_dict()) takes the weights as they are"
)


class Saving(TensorsByName):
    """Saves and loads. All processes of a pipeline call it, and what fails in one of them fails in all."""

    settings: Settings
    peers: Peers
    step_number: int
    _mended = 0
    """How many steps had failed when weights were loaded last."""

    @property
    def replica(self) -> int:
        """Which replica of a mesh this is a part of."""
        return 0

    @property
    def flown(self) -> tuple[int, int]:
        """Steps since the pipeline was empty, and steps that have failed where weights change on the way."""
        return 0, 0

    @property
    def under_way(self) -> int:
        """How many micro-batches of earlier steps are not finished."""
        return under_way(self.settings.schedule, self.flown[0])

    def require_empty(self, what: str) -> None:
        """Raise ConfigurationError while micro-batches are under way: stages have weights of different updates."""
        if self.under_way:
            raise ConfigurationError(
                f"{what} is not possible while micro-batches are under way ({self.under_way}): the stages hold weights "
                "of different updates; call drain() first"
            )

    def require_even(self, what: str) -> None:
        """Raise PipelabError unless all stages have made the same updates."""
        self.require_empty(what)
        if self.flown[1] > self._mended:
            raise PipelabError(f"{what} is not possible after a step that has failed. {_UNEVEN}")

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """An error that leaves the stages uneven says so."""
        before = self.flown[1]
        try:
            yield
        except BaseException as error:
            if self.flown[1] > before and _UNEVEN not in getattr(error, "__notes__", ()):
                error.add_note(_UNEVEN)
            raise

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors in by name. Raises ConfigurationError everywhere if names or shapes do not match anywhere."""
        self.require_empty("loading")
        with self._working():
            self._take_weights(state)

    def _take_weights(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        self._mended = self.flown[1]

    def save(self, folder: Path, data: Any, keep: int | None) -> Path:
        """Write a checkpoint; returns where it is."""
        from pipelab.runtime.checkpoint.save import Contents, save

        def collect() -> Contents:
            optimizer = None if self.settings.optimizer is None else self._told_optimizer_state()
            return Contents(self.step_number, self.state_dict(), optimizer, self.random_states(), data)

        self.require_even("saving")
        with self._working(), self._saving():
            contents = self.peers.agree_own(collect)  # what is split is put together by all who hold a part
            return self.first_says(lambda peers: save(peers, folder, contents, keep))

    def load(self, folder: Path, optimizer: bool) -> Checkpoint:
        """Go on from a checkpoint. Raises ConfigurationError, and changes nothing, if it does not fit."""
        from pipelab.runtime.checkpoint.load import read

        self.require_empty("loading")
        learns = optimizer and self.settings.optimizer is not None
        with self._working(), self._saving():
            found = read(self.peers, self, folder, self.all_names(), self.processes, learns=learns)
            if found.optimizer is not None:
                self._take_optimizer_state(found.optimizer)
            self._take_weights(found.weights)
            if optimizer:
                self.step_number = found.checkpoint.step_number
                self.take_random_states(found.random)
        return found.checkpoint

    def succeeded(self, plan: Callable[[], T], make: Callable[[T], Saving]) -> Saving:
        """The engine that ``make`` makes of what is planned, gone on from here.

        What fails in any process fails in all, and leaves this one as it is.
        """
        made: list[Saving] = []
        with self._working():
            self.require_even("rescheduling")
            planned = self.peers.agree_own(plan)
            random = self.random_states()
            try:
                self.peers.agree_own(lambda: made.append(make(planned)))
                made[0]._go_on(self, random)
            except BaseException:
                for one in made:
                    one.close(finish=False)
                with suppress(PipelabError):  # of processes that are gone
                    self._stay(random)
                raise
        return made[0]

    def _go_on(self, old: Saving, random: Mapping[str, Any]) -> None:
        """From where ``old`` is. What a process has not held so far comes from one that has."""
        with self._working():
            weights = old.state_dict()
            state = old._told_optimizer_state() if self.settings.optimizer is not None else None
            kept = {} if state is None else state["state"]
            own = {name for name, _ in self.named_state()}
            lacking = self.peers.exchange([own - set(weights), own - set(kept)])
            missed, untrained = (set().union(*each) for each in zip(*lacking, strict=True))
            takes = {name: p.requires_grad for name, p in old.named_parameters()}
            spare = {name: tensor for name, tensor in weights.items() if name in missed}
            rest = None if state is None else {**state, "state": {n: s for n, s in kept.items() if n in untrained}}
            for more, part, its in self.peers.exchange(on_cpu((spare, rest, takes))):
                weights, takes = more | weights, its | takes
                state = None if state is None else merge([state, part])
            if state is not None:
                self._take_optimizer_state(state)
            self._take_weights(weights)
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(takes[name])
            self.step_number = old.step_number
            known = self.processes if self.processes == old.processes else ["caller"]
            self.take_random_states({name: state for name, state in random.items() if name in known})

    def set_speeds(self, speeds: Any) -> None:
        """Of devices, from the next step on. Raises ConfigurationError, and changes nothing, for what cannot be."""
        with self._working():
            told = self.peers.agree(lambda: parse_speeds(speeds, self.settings.schedule.devices))
            if any(one != told[0] for one in told):
                raise ConfigurationError(f"the ranks of this pipeline disagree about speeds: {told}")
            self.settings.set_speeds(told[0])

    def decide(self, tell: Callable[[], U], work: Callable[[list[U]], T]) -> T:
        """What ``work`` comes to in the first process, told to all; what it raises there raises in all.

        It is given what the first process of each replica has to ``tell``.
        """
        with self._working():
            told: Any = self.of_replicas(lambda: tell() if self.peers.own[0] == 0 else None)
            return self.first_says(lambda peers: peers.agree(lambda: work(told) if peers.own[0] == 0 else None)[0])  # type: ignore[return-value]

    @property
    def leads(self) -> bool:
        """Whether this process speaks where one does for all."""
        return self.peers.own[0] == 0

    def of_replicas(self, tell: Callable[[], U]) -> list[U]:
        """What those who hold the same stages have to tell, one entry a replica."""
        return [tell()]

    def first_says(self, work: Callable[[Peers], T]) -> T:
        """What ``work`` comes to in the processes of the first replica, of several, told to all."""
        return work(self.peers)

    def _stay(self, random: Mapping[str, Any]) -> None:
        """After an attempt to go on elsewhere: as it was before."""
        self.take_random_states(random)

    def stages(self) -> list[tuple[int, nn.Module]]:
        """(stage, module) of those that live in this process."""
        return []

    def close(self, *, finish: bool = True) -> None:
        """Let go of processes and connections; before that ``finish`` what is on its way, or forget it."""
        raise NotImplementedError

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Say so to who looks on."""
        note(self.peers, SAVING)
        try:
            yield
        finally:
            note(self.peers, OUTSIDE)

    @property
    def processes(self) -> list[str]:
        """Whose random generators this is in charge of: what they are called in a checkpoint."""
        raise NotImplementedError

    def random_states(self) -> dict[str, Any]:
        """The states of their generators."""
        raise NotImplementedError

    def take_random_states(self, states: Mapping[str, Any]) -> None:
        """Let them go on from there; ``states`` may lack some."""
        raise NotImplementedError

    def _told_optimizer_state(self) -> OptimizerState:
        raise NotImplementedError

    def _take_optimizer_state(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _working(self) -> AbstractContextManager[None]:
        """One thing at a time."""
        raise NotImplementedError
