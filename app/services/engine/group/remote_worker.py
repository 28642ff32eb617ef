"""A machine of a group as the leader knows it."""

from dataclasses import replace

from app.services.engine.group.channel import Channel
from app.services.engine.group.messages import Hello, Message, Ready
from app.services.engine.group.processes import WorkerProcess
from app.services.facts import MachineFacts
from app.services.hostfile import Host


class RemoteWorker:
    """Its process, the channel to it, and what it has said."""

    def __init__(self, rank: int, machines: int, host: Host) -> None:
        self.rank = rank
        self.host = host
        self.name = f"Machine {rank + 1} of {machines} ({host.ssh})"
        self.process: WorkerProcess | None = None  # once it is started
        self.channel: Channel | None = None  # once it is connected
        self.hello: Hello | None = None
        self.is_joining = False
        self.ready: Ready | None = None  # once it has loaded its share
        self.free_bytes = 0

    def send(self, message: Message) -> None:
        """Send a message to one that is connected. Raises ChannelLost."""
        assert self.channel is not None
        self.channel.send(message)

    def facts(self) -> MachineFacts:
        """Say how it is."""
        if self.hello is None:
            return MachineFacts(self.host.ssh, "waiting")
        facts = MachineFacts(self.host.ssh, "loading", self.hello.device, self.free_bytes)
        return facts if self.ready is None else replace(facts, state="ready")
