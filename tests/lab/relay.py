"""`python -m tests.lab.relay FIRST SECOND`: carries packets between two links, each way 80 ms late; one in a hundred, and what
comes after it, 200 ms more. For kernels without netem. It sees Ethernet frames, so that nothing has to be told of it."""

import random
import select
import socket
import sys
import time
from collections import deque

from tests.lab.network import DELAY, HELD, SHARE

PACKET, VNET_HEADER, IGNORE_OUTGOING = 263, 15, 23  # of <linux/if_packet.h>
LARGEST = 128 * 1024  # bytes: links between namespaces carry what TCP hands down, in one piece
EVERY_PROTOCOL = 3


def link(name: str) -> socket.socket:
    """Frames with the kernel's header before them, which says what is left to do: checksums, and cutting into pieces."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    made.setsockopt(PACKET, VNET_HEADER, 1)
    made.setsockopt(PACKET, IGNORE_OUTGOING, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
    made.bind((name, 0))
    return made


class Way:
    """One direction. Frames keep their order, as those of one connection do on a real link."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.waiting: deque[tuple[float, bytes]] = deque()

    def take(self, frame: bytes, now: float) -> None:
        late = DELAY + (HELD if self.dice.random() * 100 < SHARE else 0)
        before = self.waiting[-1][0] if self.waiting else 0.0
        self.waiting.append((max(now + late / 1000, before), frame))

    def due(self, now: float) -> list[bytes]:
        found = []
        while self.waiting and self.waiting[0][0] <= now:
            found.append(self.waiting.popleft()[1])
        return found


def carry(first: socket.socket, second: socket.socket) -> None:
    ways = {first: (Way(random.Random()), second), second: (Way(random.Random()), first)}
    while True:
        now = time.monotonic()
        for way, to in ways.values():
            for frame in way.due(now):
                to.send(frame)
        pauses = [way.waiting[0][0] - now for way, _ in ways.values() if way.waiting]
        for ready in select.select(list(ways), [], [], max(0.0, min(pauses, default=1.0)))[0]:
            ways[ready][0].take(ready.recv(LARGEST), time.monotonic())


if __name__ == "__main__":
    carry(link(sys.argv[1]), link(sys.argv[2]))
