/** A WebSocket wherever we are: the browser's, Node's own from 22 on, else ours. */

export interface Socket {
  send(data: string | Uint8Array): void;
  close(): void;
  /** Bytes that were sent and are not yet on their way. */
  readonly bufferedAmount: number;
}

export interface Listener {
  opened(): void;
  /** A message of text. */
  said(text: string): void;
  /** Once, whatever happened; `reason` is for people. */
  closed(reason: string): void;
}

/** Never throws; what goes wrong is told to `closed`. */
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
  socket.onerror = () => setTimeout(() => closed("it cannot be reached"), 1000); // `close` tells more, where it comes
  socket.onclose = (event) => closed(event.reason || `closed with ${event.code}`);
  return {
    send: (data) => socket.send(data as string | Uint8Array<ArrayBuffer>),
    close: () => socket.close(),
    get bufferedAmount() {
      return socket.bufferedAmount;
    },
  };
}
