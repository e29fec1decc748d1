"""The demo: a server with the shipped tiny models, and a clip of real speech sent to it live and as a file.

    python tools/demo.py            leaves the server running
    python tools/demo.py --exit     stops it

The clip contains digits, since the tiny models know few other words.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from conure.audio.files import open_audio
from conure.client import BlockingClient, BlockingStream, Final, Partial

CLIP = Path(__file__).parents[1] / "tests" / "data" / "demo.flac"
LOG = Path(__file__).parents[1] / "build" / "demo.log"
RATE, PACKET = 16_000, 320


def main() -> int:
    exits = "--exit" in sys.argv[1:]
    server, address = start(free_ports=exits)
    if address is None:
        return 1
    try:
        client = BlockingClient(address)
        print(f"\nlive, as it is spoken ({CLIP.name}):")
        stream(client)
        print("\nthe same as a file:")
        for segment in client.transcribe(CLIP).segments:
            for word in segment.words:
                print(f"  {word.start:6.2f} {word.end:6.2f}  {word.text}")
    except BaseException:
        server.terminate()
        raise
    if exits:
        server.terminate()
        return server.wait()
    web = address.replace("ws:", "http:")
    print(f"\nThe server is running: open {web} in a browser and speak (to stop it: kill {server.pid}). Or try:")
    print(f"  conure stream {CLIP.relative_to(Path.cwd())} --url {address}" if CLIP.is_relative_to(Path.cwd()) else "")
    print(f"  curl --data-binary @tests/data/demo.flac {web}/v1/transcribe")
    return 0


def start(free_ports: bool) -> tuple[subprocess.Popen[bytes], str | None]:
    """Starts the server and waits until it is ready. Returns its process and address, None if it exited."""
    LOG.parent.mkdir(exist_ok=True)
    ports = (
        ["--port", "free", "--tcp-port", "0", "--status-port", "0", "--grpc-port", "0", "--wyoming-port", "0"]
        if free_ports
        else []
    )
    with LOG.open("wb") as log:
        command = [sys.executable, "-m", "conure", "serve", "--model", "tiny", *ports]
        server = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    while True:
        log_text = LOG.read_text()
        if server.poll() is not None or "\nready" in log_text:
            break
        time.sleep(0.1)
    print(log_text, end="")
    found = re.search(r"http://([^\s,]+)", log_text)
    return server, f"ws://{found[1]}" if found and server.poll() is None else None


def stream(client: BlockingClient) -> None:
    with client.stream(sample_rate=RATE) as live:
        sender = threading.Thread(target=send_clip, args=(live,))
        sender.start()
        for event in live:
            if isinstance(event, Partial):
                print(f"  {event.until:6.2f}  {event.stable + event.tail} …", flush=True)
            elif isinstance(event, Final):
                print(f"  {event.end:6.2f}  {event.text}", flush=True)
        sender.join()


def send_clip(live: BlockingStream) -> None:
    started_at, sent = time.monotonic(), 0
    with open_audio(CLIP, rate=RATE) as reader:
        for block in reader.blocks(PACKET / RATE):
            sent += block.shape[1]
            time.sleep(max(0.0, started_at + sent / RATE - time.monotonic()))
            live.send(block[0])
    live.close()


if __name__ == "__main__":
    sys.exit(main())
