/** Asks for the key of a server that wants one. */

import { useEffect, useRef } from "preact/hooks";
import type { JSX } from "preact";
import { asksForKey, keepKey, key } from "./server";

export function KeyDialog(): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (!asksForKey.value) return dialog.current?.close();
    if (field.current) field.current.value = "";
    dialog.current?.showModal();
  }, [asksForKey.value]);
  const submit = (event: Event) => {
    event.preventDefault();
    keepKey(field.current?.value.trim() ?? "");
  };
  /** Comes late: by then the server may have asked again. */
  const onClose = () => {
    if (!dialog.current?.open) asksForKey.value = false;
  };
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onClose={onClose}>
      <form onSubmit={submit}>
        <h2 id="key-title">This server asks for a key</h2>
        <p>Whoever runs it makes keys with <code>conure keys add</code>. It is kept until this tab is closed.</p>
        {key.value && (
          <p role="alert" class="notice bad">
            It does not know the key that it was given. Is it all of it?
          </p>
        )}
        <label>
          Key
          <input ref={field} type="password" autocomplete="off" required />
        </label>
        <div class="actions">
          <button type="submit" class="strong">
            Use it
          </button>
          <button type="button" onClick={() => dialog.current?.close()}>
            Not now
          </button>
        </div>
      </form>
    </dialog>
  );
}
