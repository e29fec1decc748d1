/** What can go wrong, each with what to do about it where that is known. */

export class ConureError extends Error {
  override name = "ConureError";
  constructor(
    message: string,
    readonly code: string,
    readonly hint: string | null = null,
    /** Seconds after which the same may go well. */
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

/** The connection broke, and the stream could not be taken up again. */
export class ConnectionLost extends ConureError {
  override name = "ConnectionLost";
  constructor(message: string) {
    super(message, "connection_lost", "what came before is there; start a new stream for the rest");
  }
}

/** The server refused, or ended the stream; `code` says why. */
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
