/** The errors of this client, with a hint if there is a known remedy. */

export class ConureError extends Error {
  override name = "ConureError";
  constructor(
    message: string,
    readonly code: string,
    readonly hint: string | null = null,
    /** Seconds after which a retry may succeed. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

/** The server cannot be reached. */
export class CannotConnect extends ConureError {
  override name = "CannotConnect";
  constructor(message: string, hint: string | null = "does `conure serve` run there?") {
    super(message, "cannot_connect", hint);
  }
}

/** The connection broke, and the stream could not be resumed. */
export class ConnectionLost extends ConureError {
  override name = "ConnectionLost";
  constructor(message: string) {
    super(message, "connection_lost", "what came before is there; start a new stream for the rest");
  }
}

/** The server refused the request or failed the stream; `code` gives the reason. */
export class ServerError extends ConureError {
  override name = "ServerError";
}

interface Told {
  message: string;
  code: string;
  hint?: string | null;
  retry_after?: number | null;
}

export function refusal(told: Told): ServerError {
  return new ServerError(told.message, told.code, told.hint ?? null, told.retry_after ?? null);
}
