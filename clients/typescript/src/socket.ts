/** A WebSocket on every platform: the browser's, Node's built-in one (22 and later), or `NodeSocket`. */

export interface Socket {
  send(data: string | Uint8Array): void;
  close(): void;
  /** Bytes queued by `send` and not yet transmitted. */
  readonly bufferedAmount: number;
}

export interface Listener {
  opened(): void;
  /** A text message. */
  said(text: string): void;
  /** Called exactly once; `reason` is human-readable. */
  closed(reason: string): void;
}

/** Never throws; errors are reported to `closed`. */
export async function openSocket(url: string, protocols: string[], listener: Listener): Promise<Socket> {
  if (typeof globalThis.WebSocket === "function") return native(url, protocols, listener);
  const { NodeSocket } = await import("./node_socket.js");
  return new NodeSocket(url, protocols, listener);
}

function native(url: string, protocols: string[], listener: Listener): Socket {
  const socket = new WebSocket(url, protocols);
  let told = false;
  const closed = (reason: string) => {
    if (told) return;
    told = true;
    listener.closed(reason);
  };
  socket.onopen = () => listener.opened();
  socket.onmessage = (message) => {
    if (typeof message.data === "string") listener.said(message.data);
  };
  socket.onerror = () => setTimeout(() => closed("it cannot be reached"), 1000); // the `close` event has a better reason, if it comes
  socket.onclose = (event) => closed(event.reason || `closed with ${event.code}`);
  return {
    send: (data) => socket.send(data as string | Uint8Array<ArrayBuffer>),
    close: () => socket.close(),
    get bufferedAmount() {
      return socket.bufferedAmount;
    },
  };
}
