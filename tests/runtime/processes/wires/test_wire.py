import torch

from pipelab.runtime.device.payload import Payload
from pipelab.runtime.processes.wires.wire import GroupWire
from pipelab.schedules import Action
from pipelab.schedules.wire import Channel, Route
from pipelab.simulation.links import Link, Links


class Lines(dict):
    """Of rank 1, which remember when messages are to be delivered."""

    rank = 1

    class Line:
        def send(self, layout, tensors, stamp, producer):
            self.stamp = stamp


def test_a_message_is_delivered_as_late_as_its_own_link_says():
    action = Action(1, "F", 0)
    route = Route(action, action, (1, 0), (0, 0))
    channels = [Channel("activation", 1, 2), Channel("gradient", 1, 0)]
    lines = Lines({channel: Lines.Line() for channel in channels})
    links = Links(1.0, pairs={(1, 2): Link(50.0, 8e-1)})  # 8 bytes take 10 s
    wire = GroupWire(lines, {c: [route] for c in channels}, torch.device("cpu"), [1], None, links)
    for channel, late in zip(channels, (60.0, 1.0), strict=True):
        sent = wire.outlet(channel)(Payload((torch.zeros(2),), True, (True,)))
        assert lines[channel].stamp == sent + late
